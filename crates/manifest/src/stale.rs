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
        let mut previous = self.artifact.as_ref().and_then(|artifact| artifact.stamp.stale.clone());
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
        }
        for (builder, verdict) in &mut self.tests {
            let image = self.images.get(builder);
            mark(
                &mut verdict.stamp,
                image.and_then(|image| image.stamp.stale.clone()),
                image.map(|image| &image.identity),
                "the image",
            );
        }
        let deployed = self.component.image.as_ref().and_then(|image| self.images.get(&image.builder));
        previous = deployed.and_then(|image| image.stamp.stale.clone());
        let image = deployed.map(|image| image.identity.clone());
        for deployment in self.deployments.values_mut() {
            mark(&mut deployment.stamp, previous.clone(), image.as_ref(), "the image");
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
