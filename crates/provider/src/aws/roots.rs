//! A look into images: each gets a volume for the time that it takes.

use std::path::Path;

use anyhow::{Context, Result};
use cli::narrate;
use manifest::Medium;

use super::Aws;
use crate::local::private_mount;
use crate::{Attachment, Images, RegisteredImage, VolumeRecord, VolumeSpec, origin, partition};

impl Aws {
    pub(super) async fn look_into<T: Send, const N: usize>(
        &self,
        ids: [&str; N],
        look: impl FnOnce([&Path; N]) -> Result<T> + Send,
    ) -> Result<T> {
        let mut volumes = Vec::new();
        let looked = self.attached(ids, &mut volumes).await.and_then(|attached| {
            let roots: Vec<_> =
                attached.iter().map(|(image, it)| partition(&it.device, image.root_partition())).collect();
            private_mount::with(std::array::from_fn(|at| roots[at].as_path()), look)
        });
        for volume in volumes {
            if let Err(left) = self.remove_volume(&volume.id).await {
                narrate::note(&format!("{left:#}; `imager gc` does it later"));
            }
        }
        looked
    }

    /// Attaches a volume of each image; `volumes` are those to be deleted then, however this ends.
    async fn attached<const N: usize>(
        &self,
        ids: [&str; N],
        volumes: &mut Vec<VolumeRecord>,
    ) -> Result<Vec<(RegisteredImage, Attachment)>> {
        let mut attached = Vec::new();
        for id in ids {
            let image = self.image(id).await?.with_context(|| format!("image {id} is no longer there"))?;
            let spec = VolumeSpec {
                layer: None,
                virtualization_type: image.virtualization_type.clone(),
                root_partition: image.root_partition,
                size: None,
                medium: Medium::default(),
                tags: origin::tags("imager", None),
                source: Some(image.clone()),
            };
            let volume = self.make_volume(&spec).await?;
            volumes.push(volume);
            let id = &volumes[volumes.len() - 1].id;
            attached.push((image, self.attach_volume(id, None).await?));
        }
        Ok(attached)
    }
}
