//! What dead runs have left, and what no build takes up any more.

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::Local;
use super::records::{names_in, remove_dir};
use crate::images::{LAYER_KEPT, VOLUME_KEPT};
use crate::{Images, LeftOver};

const DIRECTORY: &str = "directory";
const VOLUME: &str = "volume";
const LAYER: &str = "layer";

impl Local {
    pub(super) async fn expired(&self) -> Result<Vec<LeftOver>> {
        let directory = |name: String| LeftOver { kind: DIRECTORY, from: format!("process {name}"), id: name };
        let mut found: Vec<_> = self.abandoned()?.into_iter().map(directory).collect();
        let complete =
            |kind, id, created: Timestamp| LeftOver { kind, id, from: format!("complete since {created:.0}") };
        for id in names_in(&self.state.join("volumes"))? {
            let created = self.volume(&id).await?.map(|volume| volume.created);
            if let Some(created) = created.filter(|created| *created < Timestamp::now() - VOLUME_KEPT) {
                found.push(complete(VOLUME, id, created));
            }
        }
        let mut layers = self.layers().await?;
        layers.retain(|layer| layer.created < Timestamp::now() - LAYER_KEPT);
        found.extend(layers.into_iter().map(|layer| complete(LAYER, layer.key, layer.created)));
        Ok(found)
    }

    pub(super) async fn delete_expired(&self, left_over: &LeftOver) -> Result<()> {
        let id = &left_over.id;
        match left_over.kind {
            VOLUME => self.delete_volume(id).await,
            LAYER => {
                // Whoever makes the layer anew at this moment holds its lock.
                let _lock = self.lock_layer(id).await?;
                self.delete_layer(id).await
            }
            DIRECTORY => remove_dir(&self.state.join("tmp").join(id)),
            other => bail!("there is no {other} here that could be deleted"),
        }
    }
}
