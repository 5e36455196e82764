//! In whose name we work: the standard chain, and what a builder says otherwise.

use std::time::Duration;

use anyhow::Result;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::Provider as Tls;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use cli::BadInput;
use manifest::Role;

use crate::Access;

/// How long AWS may take to begin its answer to a call. Without a limit, an answer that got lost is waited for
/// for ever; with it, the call is made again.
const ANSWER: Duration = Duration::from_secs(60);

/// What clients are made of, and the region.
pub(super) async fn load(access: &Access) -> Result<(SdkConfig, String)> {
    let tls = Builder::new().tls_provider(Tls::Rustls(CryptoMode::Ring)).build_https();
    let patience = TimeoutConfig::builder().read_timeout(ANSWER).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(tls.clone()).timeout_config(patience);
    if let Some(profile) = &access.account.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = &access.account.region {
        loader = loader.region(Region::new(region.clone()));
    }
    let mut config = loader.load().await;
    let Some(region) = config.region().cloned() else {
        let remedy = "set AWS_REGION, or `region` in the profile";
        return Err(BadInput::new("finding out who we are on AWS", "no region is set", remedy).into());
    };
    if let Some(keys) = &access.keys {
        let keys = Credentials::new(&keys.id, &keys.secret, keys.token.clone(), None, "template");
        config = of(config, SharedCredentialsProvider::new(keys));
    } else if let Some(profile) = &access.account.profile {
        // By itself the chain prefers keys in the environment to a profile, even to one that was named.
        let chain = ProviderConfig::without_region().with_region(Some(region.clone())).with_http_client(tls);
        let keys = ProfileFileCredentialsProvider::builder().profile_name(profile).configure(&chain).build();
        config = of(config, SharedCredentialsProvider::new(keys));
    }
    if let Some(role) = &access.account.role {
        let taken = assumed(role, &config).await;
        config = of(config, SharedCredentialsProvider::new(taken));
    }
    Ok((config, region.to_string()))
}

/// The same, in this name.
fn of(config: SdkConfig, credentials: SharedCredentialsProvider) -> SdkConfig {
    config.into_builder().credentials_provider(credentials).build()
}

/// The role, taken with what `config` has.
async fn assumed(role: &Role, config: &SdkConfig) -> AssumeRoleProvider {
    let session = role.session.clone().unwrap_or_else(|| format!("kiln-{}", std::process::id()));
    let mut provider = AssumeRoleProvider::builder(&role.arn).configure(config).session_name(session);
    if let Some(id) = &role.external_id {
        provider = provider.external_id(id);
    }
    if let Some(seconds) = role.seconds {
        provider = provider.session_length(Duration::from_secs(seconds));
    }
    if let Some(policy) = &role.policy {
        provider = provider.policy(policy);
    }
    if !role.policies.is_empty() {
        provider = provider.policy_arns(role.policies.clone());
    }
    if !role.tags.is_empty() {
        provider = provider.tags(role.tags.clone());
    }
    provider.build().await
}

/// A client of EC2, which may answer elsewhere.
pub(super) fn ec2(config: &SdkConfig, endpoint: Option<&str>) -> aws_sdk_ec2::Client {
    let config = aws_sdk_ec2::config::Builder::from(config);
    let config = match endpoint {
        Some(endpoint) => config.endpoint_url(endpoint),
        None => config,
    };
    aws_sdk_ec2::Client::from_conf(config.build())
}
