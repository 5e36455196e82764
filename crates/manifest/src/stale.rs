//! An entry that rests on something replaced is marked, never dropped.

use crate::{Identity, Manifest, Stamp};

impl Manifest {
    /// Marks what no longer follows from the entry above it, and unmarks what does again.
    ///
    /// A mark is derived from the document alone, so no stage has to know which
    /// stages come after it.
    pub(crate) fn mark_stale(&mut self) {
        let source = self.source.as_ref().map(|source| source.archive.clone());
        if let Some(artifact) = &mut self.artifact {
            mark(&mut artifact.stamp, None, source.as_ref(), "the source");
        }
        let artifact = self.artifact.as_ref().map(|artifact| artifact.identity.clone());
        let previous = self.artifact.as_ref().and_then(|artifact| artifact.stamp.stale.clone());
        for volume in self.volumes.values_mut() {
            let rests_on = volume.artifact.clone();
            volume.stamp.stale = previous.clone().or_else(|| reason(&rests_on, artifact.as_ref(), "the artifact"));
        }
        for (builder, image) in &mut self.images {
            let volume = self.volumes.get(builder);
            mark(
                &mut image.stamp,
                volume.and_then(|volume| volume.stamp.stale.clone()),
                volume.map(|volume| &volume.identity),
                "the volume",
            );
            for there in image.published.values_mut() {
                mark(&mut there.stamp, image.stamp.stale.clone(), Some(&image.identity), "the image");
            }
        }
        for (builder, verdict) in &mut self.tests {
            let image = self.images.get(builder);
            let current = image.map(|image| image.counterpart(&verdict.stamp.consumed));
            mark(&mut verdict.stamp, image.and_then(|image| image.stamp.stale.clone()), current, "the image");
        }
        let deployed = self.component.image.as_ref().and_then(|image| self.images.get(&image.builder));
        for deployment in self.deployments.values_mut() {
            let current = deployed.map(|image| image.counterpart(&deployment.stamp.consumed));
            mark(&mut deployment.stamp, deployed.and_then(|image| image.stamp.stale.clone()), current, "the image");
        }
    }
}

fn mark(stamp: &mut Stamp, inherited: Option<String>, current: Option<&Identity>, what: &str) {
    stamp.stale = inherited.or_else(|| reason(&stamp.consumed, current, what));
}

fn reason(consumed: &Identity, current: Option<&Identity>, what: &str) -> Option<String> {
    match current {
        Some(current) if current == consumed => None,
        Some(current) => Some(format!("{what} {consumed} was replaced by {current}")),
        None => Some(format!("{what} {consumed} is no longer in the manifest")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdentityKind, PublishedImage};

    const PLACE: &str = "aws us-east-1";

    fn ami(id: &str) -> Identity {
        Identity::new(IdentityKind::AwsImage, id)
    }

    /// A manifest whose image is published as `id`, and was tested and deployed there as `tested`.
    fn published(id: &str, tested: &str) -> Manifest {
        let mut manifest: Manifest = serde_json::from_str(include_str!("../tests/fixtures/v1.json")).unwrap();
        let image = manifest.images.get_mut("hvm").unwrap();
        let stamp = Stamp { consumed: image.identity.clone(), ..image.stamp.clone() };
        let there = PublishedImage { stamp, identity: ami(id), name: image.name.clone(), earned: None };
        image.published.insert(PLACE.to_owned(), there);
        manifest.tests.get_mut("hvm").unwrap().stamp.consumed = ami(tested);
        manifest.deployments.values_mut().for_each(|deployment| deployment.stamp.consumed = ami(tested));
        manifest.mark_stale();
        manifest
    }

    #[test]
    fn what_rests_on_a_published_image_is_not_stale_while_that_is_the_one() {
        let marks = |manifest: &Manifest| {
            let deployments = manifest.deployments.values().map(|deployment| deployment.stamp.stale.clone());
            deployments.chain([manifest.tests["hvm"].stamp.stale.clone()]).collect::<Vec<_>>()
        };
        let mut manifest = published("ami-1", "ami-1");
        assert!(marks(&manifest).iter().all(Option::is_none), "{:?}", marks(&manifest));
        let why = Some("the image ami-1 was replaced by ami-2".to_owned());
        let replaced = marks(&published("ami-2", "ami-1"));
        assert!(replaced.iter().all(|mark| *mark == why), "{replaced:?}");

        manifest.artifact.as_mut().unwrap().identity = Identity::sha256("another");
        manifest.mark_stale();
        assert!(marks(&manifest).iter().all(Option::is_some));
        assert!(manifest.images["hvm"].published[PLACE].stamp.stale.is_some());
        assert!(manifest.images["hvm"].at(PLACE, IdentityKind::AwsImage).unwrap().stamp.stale.is_some());
    }

    #[test]
    fn an_image_is_known_where_it_was_made_and_where_it_was_published() {
        let manifest = published("ami-1", "ami-1");
        let image = &manifest.images["hvm"];
        assert_eq!(image.at("local", image.identity.kind).as_ref(), Some(image));
        let there = image.at(PLACE, IdentityKind::AwsImage).unwrap();
        assert_eq!((&there.identity, &there.digest), (&ami("ami-1"), &image.digest));
        assert_eq!((image.made_by(), there.made_by()), ("imager snapshot", "imager publish --to aws"));
        assert_eq!(image.at("aws eu-west-1", IdentityKind::AwsImage), None);
    }
}
