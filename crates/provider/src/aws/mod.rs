//! AWS: EC2 volumes, snapshots and images, S3, Auto Scaling groups, balancers and Route 53.
//!
//! Who we are and where comes from the standard chain: environment, profile, instance role. Every endpoint can be
//! overridden by the standard variables (`AWS_ENDPOINT_URL`, or `AWS_ENDPOINT_URL_EC2` and so on for one service), so
//! an emulator can stand in. Whatever is made is tagged in the call that makes it.

mod account;
mod ami;
mod console;
mod devices;
mod ebs_direct;
mod failure;
mod fleets;
mod here;
mod holder;
mod images;
mod instances;
mod lease;
mod left_over;
mod objects;
mod publication;
mod registration;
mod roots;
mod s3;
mod s3_manifest;
mod s3_upload;
mod snapshots;
mod ssm;
mod tags;
mod volumes;
mod wait;

use std::sync::{Arc, OnceLock};

use anyhow::Result;
use aws_config::SdkConfig;
use cli::args::ProviderArgs;

pub use objects::Bucket;
pub use s3::Url;
pub use s3_manifest::ManifestObject;

use crate::Access;
use crate::local::Local;

use here::Here;

/// AWS, in one region.
#[derive(Debug, Clone)]
pub struct Aws {
    region: String,
    /// What a build needs of this machine: scratch, cache and locks.
    machine: Local,
    /// What clients for other regions are made of.
    config: Arc<SdkConfig>,
    here: Arc<OnceLock<Here>>,
    ec2: aws_sdk_ec2::Client,
    ebs: aws_sdk_ebs::Client,
    ssm: aws_sdk_ssm::Client,
    groups: aws_sdk_autoscaling::Client,
    balancers: aws_sdk_elasticloadbalancingv2::Client,
    classic_balancers: aws_sdk_elasticloadbalancing::Client,
    names: aws_sdk_route53::Client,
}

impl Aws {
    /// Finds out in which region we are. Makes no call that needs permissions.
    pub async fn open(args: &ProviderArgs) -> Result<Self> {
        Self::of(&Access::default(), Local::open(args)?).await
    }

    async fn of(access: &Access, machine: Local) -> Result<Self> {
        let (config, region) = account::load(access).await?;
        Ok(Self {
            region,
            machine,
            here: Arc::default(),
            ec2: account::ec2(&config, access.account.endpoint.as_deref()),
            ebs: aws_sdk_ebs::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
            groups: aws_sdk_autoscaling::Client::new(&config),
            balancers: aws_sdk_elasticloadbalancingv2::Client::new(&config),
            classic_balancers: aws_sdk_elasticloadbalancing::Client::new(&config),
            names: aws_sdk_route53::Client::new(&config),
            config: Arc::new(config),
        })
    }

    /// EC2 in another region, in the same name.
    fn in_region(&self, region: &str) -> Self {
        let config = self.ec2.config().to_builder().region(aws_config::Region::new(region.to_owned()));
        Self { region: region.to_owned(), ec2: aws_sdk_ec2::Client::from_conf(config.build()), ..self.clone() }
    }
}
