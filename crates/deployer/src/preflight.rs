//! What must be true of an image before anything is made for it.

use anyhow::Result;
use cli::BadInput;
use manifest::{Identity, Image, Manifest, Verdict};
use provider::{Images, RegisteredImage, Service, ServiceSpec, StoredVerdict, known_here};

use crate::request::Request;
use crate::weights;

/// An image that has not earned its deployment: exit code 1, and nothing was changed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No verdict in the manifest.
    #[error("image {image} has not been tested: the manifest has no verdict on it; run `tester run`")]
    NotTested {
        /// The image.
        image: Identity,
    },
    /// The manifest's verdict belongs to something older.
    #[error("the manifest's verdict on image {image} is stale: {why}; run `tester run`")]
    Stale {
        /// The image.
        image: Identity,
        /// What was replaced.
        why: String,
    },
    /// The manifest's verdict is that of the same content at another provider.
    #[error(
        "image {image} has not been tested here: the manifest's verdict is on {tested}; run `tester run` against this provider"
    )]
    TestedElsewhere {
        /// The image.
        image: Identity,
        /// What was tested.
        tested: Identity,
    },
    /// No verdict with the image.
    #[error(
        "image {image} carries no verdict at its provider, although the manifest has one: run `tester run` against this provider"
    )]
    NotCarried {
        /// The image.
        image: Identity,
    },
    /// The test failed.
    #[error("image {image} failed its test, {place} says: mend what failed, build and test again")]
    Failed {
        /// The image.
        image: Identity,
        /// Who says so.
        place: &'static str,
    },
    /// Something else was tested.
    #[error(
        "the verdict on image {image}, in {place}, is for the content {tested}, and the image has {found}: run `tester run --force`"
    )]
    OtherContent {
        /// The image.
        image: Identity,
        /// Whose verdict.
        place: &'static str,
        /// Digest of what was tested.
        tested: Identity,
        /// Digest of the image.
        found: Identity,
    },
}

/// The image to deploy, from the manifest alone, as the provider knows it.
pub fn image_of(provider: &impl Images, manifest: &Manifest) -> Result<Image, BadInput> {
    let builder = &manifest.component.service()?.image.builder;
    let refuse = |why: String, remedy: &str| BadInput::new("choosing the image to deploy", why, remedy);
    let image = manifest.images.get(builder).ok_or_else(|| {
        refuse(
            format!("the manifest has no image of the builder '{builder}'"),
            "run `imager provision` and `imager snapshot` first",
        )
    })?;
    match &image.stamp.stale {
        Some(why) => Err(refuse(
            format!("the image {} is stale: {why}", image.identity),
            "run the stages from `imager provision` on again",
        )),
        None => known_here(provider, builder, image),
    }
}

/// Checks that the image is there, is what the manifest says, and passed its test.
///
/// The outer error says that the input is bad or could not be checked, the inner one that the answer is no.
pub async fn check(provider: &impl Images, request: &Request) -> Result<Result<(), Refusal>> {
    if let Some(why) = weights::fault(&request.fleet.steps) {
        return Err(BadInput::new("reading the deploy section", why, "mend component.toml and build again").into());
    }
    let image = &request.image;
    let registered = provider.image(&image.identity.value).await?;
    let registered =
        same_image(image, registered.as_ref()).map_err(|error| error.in_file(&request.section.manifest))?;
    Ok(tested(image, request.verdict.as_ref(), registered.verdict.as_ref()))
}

/// Checks that the service, if it is there, is the one that is asked for: its groups share one balancer and one
/// health check, so that a change of these would reach the group that has the traffic.
pub fn same_service(asked: &ServiceSpec, present: Option<&Service>) -> Result<(), BadInput> {
    let Some(Service { spec, .. }) = present else { return Ok(()) };
    let differs = [
        ("port", asked.port.to_string(), spec.port.to_string()),
        ("health", asked.health.clone(), spec.health.clone()),
        ("dns", asked.dns.clone(), spec.dns.clone()),
        ("listen", port(asked.listen.or(spec.listen)), port(spec.listen)),
    ];
    let differs = differs.into_iter().filter(|(_, asked, present)| asked != present);
    let differs: Vec<_> =
        differs.map(|(key, asked, present)| format!("`{key}` is {present} and would become {asked}")).collect();
    if differs.is_empty() {
        return Ok(());
    }
    let why = format!("the service {} serves with other settings: {}", spec.name, differs.join(", "));
    let remedy = "keep them, or run `deployer destroy` first, which interrupts the service";
    Err(BadInput::new("reading the deploy section", why, remedy))
}

/// Checks that no other service of the provider has the name or the port that is asked for.
pub fn nobody_elses(asked: &ServiceSpec, services: &[Service]) -> Result<(), BadInput> {
    for other in services.iter().map(|service| &service.spec).filter(|other| other.name != asked.name) {
        let taken = [
            ("dns", asked.dns.clone(), asked.dns == other.dns),
            ("listen", port(asked.listen), asked.listen.is_some() && asked.listen == other.listen),
        ];
        if let Some((key, value, _)) = taken.into_iter().find(|(_, _, is_taken)| *is_taken) {
            let why = format!("`{key}` {value} belongs to the service {}", other.name);
            let remedy = "choose another in component.toml and build again";
            return Err(BadInput::new("reading the deploy section", why, remedy));
        }
    }
    Ok(())
}

fn port(port: Option<u16>) -> String {
    port.map_or_else(|| "any".to_owned(), |port| port.to_string())
}

fn same_image<'a>(image: &Image, registered: Option<&'a RegisteredImage>) -> Result<&'a RegisteredImage, BadInput> {
    let identity = &image.identity;
    let remedy = format!("run `{}` and `tester run`", image.made_by());
    let refuse = |why| BadInput::new("looking for the image to deploy", why, remedy);
    match registered {
        None => Err(refuse(format!("image {identity} is no longer at the provider"))),
        Some(registered) if registered.digest != image.digest => Err(refuse(format!(
            "image {identity} has the content {} at the provider, and the manifest says {}",
            registered.digest, image.digest
        ))),
        Some(registered) => Ok(registered),
    }
}

fn tested(image: &Image, verdict: Option<&Verdict>, carried: Option<&StoredVerdict>) -> Result<(), Refusal> {
    let identity = &image.identity;
    let verdict = verdict.ok_or_else(|| Refusal::NotTested { image: identity.clone() })?;
    if let Some(why) = &verdict.stamp.stale {
        return Err(Refusal::Stale { image: identity.clone(), why: why.clone() });
    }
    if verdict.stamp.consumed != *identity {
        return Err(Refusal::TestedElsewhere { image: identity.clone(), tested: verdict.stamp.consumed.clone() });
    }
    let carried = carried.ok_or_else(|| Refusal::NotCarried { image: identity.clone() })?;
    for (place, passed, digest) in
        [("the manifest", verdict.passed, &verdict.digest), ("the image's own record", carried.passed, &carried.digest)]
    {
        if *digest != image.digest {
            let (tested, found) = (digest.clone(), image.digest.clone());
            return Err(Refusal::OtherContent { image: identity.clone(), place, tested, found });
        }
        if !passed {
            return Err(Refusal::Failed { image: identity.clone(), place });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
