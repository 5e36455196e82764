//! `imager images`

use anyhow::Result;
use cli::ExitCode;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use provider::Images;

/// Arguments of `imager images`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists all images, oldest first.
pub(crate) async fn run(provider: &impl Images, args: &Args) -> Result<ExitCode> {
    let images = provider.list().await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&images)?);
        return Ok(ExitCode::Done);
    }
    let aliases = provider.aliases().await?;
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["ID", "NAME", "TYPE", "SIZE", "CREATED", "TESTED", "ALIASES"]);
    for image in images {
        let names: Vec<_> =
            aliases.iter().filter(|(_, id)| **id == image.id).map(|(alias, _)| alias.as_str()).collect();
        let tested = match &image.verdict {
            None => "-",
            Some(verdict) if verdict.passed => "passed",
            Some(_) => "failed",
        };
        table.add_row([
            image.id.as_str(),
            &image.name,
            &image.virtualization_type,
            &format!("{} MiB", image.size >> 20),
            &format!("{:.0}", image.created),
            tested,
            &names.join(" "),
        ]);
    }
    println!("{table}");
    Ok(ExitCode::Done)
}
