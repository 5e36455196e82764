//! `imager layers`

use anyhow::Result;
use cli::ExitCode;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use jiff::{SignedDuration, Timestamp};
use provider::{Images, LayerRecord};

use crate::layers::MAX_AGE_DAYS;

/// Arguments of `imager layers`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Remove layers that are older than --older-than, and the oldest ones while all take more than --max-size.
    #[arg(long)]
    prune: bool,
    /// Age in days; unless --max-age says otherwise, layers past seven days are not used any more.
    #[arg(long, value_name = "DAYS", default_value_t = MAX_AGE_DAYS, requires = "prune")]
    older_than: u32,
    /// Size in GiB that all layers together may take.
    #[arg(long, value_name = "GIB", requires = "prune")]
    max_size: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists the layers, oldest first; with `--prune`, those that it removed.
pub(crate) async fn run(provider: &impl Images, args: &Args) -> Result<ExitCode> {
    let mut layers = provider.layers().await?;
    if args.prune {
        let oldest = Timestamp::now() - SignedDuration::from_hours(24 * i64::from(args.older_than));
        layers = too_old_or_too_much(layers, oldest, args.max_size.map(|size| size << 30));
        for layer in &layers {
            // Whoever makes the layer anew at this moment holds its lock.
            let _lock = provider.lock_layer(&layer.key).await?;
            provider.delete_layer(&layer.key).await?;
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&layers)?);
        return Ok(ExitCode::Done);
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["KEY", "MADE BY", "CREATED", "SIZE"]);
    for layer in layers {
        let (key, size) = (&layer.key[..12.min(layer.key.len())], format!("{} MiB", layer.size >> 20));
        table.add_row([key, &layer.made_by, &format!("{:.0}", layer.created), &size]);
    }
    println!("{table}");
    Ok(ExitCode::Done)
}

/// Of layers that are sorted by age, those to remove.
fn too_old_or_too_much(layers: Vec<LayerRecord>, oldest: Timestamp, max_size: Option<u64>) -> Vec<LayerRecord> {
    let mut total: u64 = layers.iter().map(|layer| layer.size).sum();
    let too_much = |total: u64| max_size.is_some_and(|max_size| total > max_size);
    let mut removed = Vec::new();
    for layer in layers {
        if layer.created < oldest || too_much(total) {
            total -= layer.size;
            removed.push(layer);
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn removed(older_than: i64, max_size: Option<u64>) -> Vec<String> {
        let at = |second| Timestamp::from_second(second).unwrap();
        let layer = |key: &str, second, size| LayerRecord {
            key: key.to_owned(),
            made_by: String::new(),
            created: at(second),
            size,
        };
        let layers = vec![layer("a", 10, 5), layer("b", 20, 5), layer("c", 30, 5)];
        too_old_or_too_much(layers, at(older_than), max_size).into_iter().map(|layer| layer.key).collect()
    }

    #[test]
    fn the_old_go_and_then_the_oldest_until_the_rest_fits() {
        assert_eq!(removed(0, None), [""; 0]);
        assert_eq!(removed(20, None), ["a"]);
        assert_eq!(removed(0, Some(10)), ["a"]);
        assert_eq!(removed(20, Some(5)), ["a", "b"]);
        assert_eq!(removed(40, Some(100)), ["a", "b", "c"]);
    }
}
