//! An image of this machine, published at another provider, and known there.

use std::collections::BTreeMap;

use anyhow::Result;
use cli::BadInput;
use manifest::{Account, Identity, IdentityKind, Image, Medium};

use crate::local::Local;
use crate::{Images, Provider, RegisteredImage, Registration};

/// What an image of this machine is to be at another provider.
#[derive(Debug, Clone)]
pub struct PublishSpec {
    /// What it is to be registered as.
    pub registration: Registration,
    /// What it is kept on. It is encrypted where this says so, or the account encrypts everything.
    pub medium: Medium,
    /// In whose name it is published, and where.
    pub account: Account,
}

/// An image that is at another provider now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The image there.
    pub identity: Identity,
    /// Where it is, such as `aws us-east-1`; the copies that were made of it are among these.
    pub places: BTreeMap<String, Identity>,
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
            Self::Aws(aws) => {
                let access = crate::Access { account: spec.account.clone(), keys: None };
                aws.on_behalf_of(&access).await?.publish(from, image, spec).await
            }
        }
    }
}

/// A builder's image in a manifest as this provider knows it: the image itself, or what was published of it here.
pub fn known_here<P: Images>(provider: &P, builder: &str, image: &Image) -> Result<Image, BadInput> {
    let here = provider.place();
    image.at(&here, P::IMAGE).ok_or_else(|| {
        let elsewhere: Vec<_> = image.published.keys().map(String::as_str).collect();
        let elsewhere = match elsewhere[..] {
            [] => String::new(),
            _ => format!(", only at {}", elsewhere.join(" and ")),
        };
        let why = format!("the image {} of '{builder}' is not known at {here}{elsewhere}", image.identity);
        let remedy = match P::IMAGE {
            IdentityKind::AwsImage => "publish it there with `imager publish --to aws`",
            _ => "name its provider with --provider, or make another here with `imager build`",
        };
        BadInput::new("looking for the image", why, remedy)
    })
}
