//! The instance that we run on, as its metadata service knows it (IMDSv2).

use anyhow::{Context, Result, bail};
use aws_config::imds;
use aws_config::provider_config::ProviderConfig;
use cli::BadInput;
use serde::Deserialize;

use super::Aws;
use super::failure::chain;

/// Who and where an instance is ("Instance identity documents").
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Here {
    #[serde(rename = "instanceId")]
    pub(super) instance: String,
    pub(super) region: String,
    #[serde(rename = "availabilityZone")]
    pub(super) zone: String,
}

impl Aws {
    /// The instance that this process runs on. An error off EC2, and where volumes of this provider cannot be attached.
    pub(super) async fn here(&self) -> Result<&Here> {
        if self.here.get().is_none() {
            let found = self.ask_where_we_are().await?;
            // Whoever was quicker has found the same.
            let _ = self.here.set(found);
        }
        let here = self.here.get().context("finding out where we are")?;
        if here.region != self.region {
            let why = format!("this instance is in {}, and the volume would be in {}", here.region, self.region);
            let remedy = "set the region to this one's, and name others in ami_regions: the image is copied there";
            return Err(BadInput::new("choosing where volumes are made", why, remedy).into());
        }
        Ok(here)
    }

    async fn ask_where_we_are(&self) -> Result<Here> {
        let config = ProviderConfig::without_region();
        let config = match self.config.http_client() {
            Some(client) => config.with_http_client(client),
            None => config,
        };
        let service = imds::Client::builder().configure(&config).build();
        let document = match service.get("/latest/dynamic/instance-identity/document").await {
            Ok(document) => document,
            Err(error) => bail!(
                "asking the instance metadata service who we are: {}; volumes can be attached on an EC2 instance only: run \
                 there, or build with --provider local and `imager publish` the image",
                chain(&error)
            ),
        };
        serde_json::from_str(document.as_ref()).context("reading the instance identity document")
    }
}
