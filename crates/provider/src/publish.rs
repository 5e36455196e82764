//! An image of this machine, published at another provider.

use anyhow::Result;
use cli::BadInput;
use manifest::Identity;

use crate::local::Local;
use crate::{Provider, RegisteredImage, Registration};

/// What an image of this machine is to be at another provider.
#[derive(Debug, Clone)]
pub struct PublishSpec {
    /// What it is to be registered as.
    pub registration: Registration,
    /// Whether it is to be encrypted even where the account does not encrypt everything.
    pub encrypt: bool,
    /// The key that it is encrypted with, if that is not the account's default.
    pub key: Option<String>,
}

/// An image that is at another provider now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The image there.
    pub identity: Identity,
    /// Where it is, such as `aws us-east-1`.
    pub place: String,
    /// Whether it was there already.
    pub unchanged: bool,
}

impl Provider {
    /// Publishes an image of this machine at this provider, with the verdict that it has earned.
    pub async fn publish(&self, from: &Local, image: &RegisteredImage, spec: &PublishSpec) -> Result<Published> {
        match self {
            Self::Local(_) => {
                let _ = (from, spec);
                let doing = format!("publishing the image {}", image.id);
                let why = "it is an image of the local provider already";
                Err(BadInput::new(doing, why, "name another with --to").into())
            }
            #[cfg(feature = "aws")]
            Self::Aws(aws) => aws.publish(from, image, spec).await,
        }
    }
}
