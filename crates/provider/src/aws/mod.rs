//! AWS: EC2 volumes, snapshots and images, S3, Auto Scaling groups, balancers and Route 53.
//!
//! Who we are and where comes from the standard chain: environment, profile, instance role. Every endpoint can be
//! overridden by the standard variables (`AWS_ENDPOINT_URL`, or `AWS_ENDPOINT_URL_EC2` and so on for one service), so
//! an emulator can stand in. Whatever is made is tagged in the call that makes it.

mod ami;
mod ebs_direct;
mod failure;
mod fleets;
mod images;
mod instances;
mod objects;
mod tags;
mod wait;

use anyhow::Result;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider as Tls;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use cli::BadInput;
use cli::args::ProviderArgs;

use crate::local::Local;

/// AWS, in one region.
#[derive(Debug, Clone)]
pub struct Aws {
    region: String,
    /// What a build needs of this machine: scratch, cache and locks.
    machine: Local,
    ec2: aws_sdk_ec2::Client,
    ebs: aws_sdk_ebs::Client,
    s3: aws_sdk_s3::Client,
    ssm: aws_sdk_ssm::Client,
    groups: aws_sdk_autoscaling::Client,
    balancers: aws_sdk_elasticloadbalancingv2::Client,
    classic_balancers: aws_sdk_elasticloadbalancing::Client,
    names: aws_sdk_route53::Client,
}

impl Aws {
    /// Finds out in which region we are. Makes no call that needs permissions.
    pub async fn open(args: &ProviderArgs) -> Result<Self> {
        let tls = Builder::new().tls_provider(Tls::Rustls(CryptoMode::Ring)).build_https();
        let config = aws_config::defaults(BehaviorVersion::latest()).http_client(tls).load().await;
        let Some(region) = config.region().map(ToString::to_string) else {
            let remedy = "set AWS_REGION, or `region` in the profile";
            return Err(BadInput::new("opening the provider aws", "no region is set", remedy).into());
        };
        Ok(Self::with(&config, region, Local::open(args)?))
    }

    fn with(config: &SdkConfig, region: String, machine: Local) -> Self {
        Self {
            region,
            machine,
            ec2: aws_sdk_ec2::Client::new(config),
            ebs: aws_sdk_ebs::Client::new(config),
            s3: aws_sdk_s3::Client::new(config),
            ssm: aws_sdk_ssm::Client::new(config),
            groups: aws_sdk_autoscaling::Client::new(config),
            balancers: aws_sdk_elasticloadbalancingv2::Client::new(config),
            classic_balancers: aws_sdk_elasticloadbalancing::Client::new(config),
            names: aws_sdk_route53::Client::new(config),
        }
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.region
    }
}
