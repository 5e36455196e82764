//! `deployer list`

use anyhow::Result;
use cli::args::ProviderArgs;
use cli::{ExitCode, narrate};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use provider::{Fleets, Service};
use serde_json::json;

/// List all services. Starts nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print a JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// Prints the services.
pub async fn run(args: Args, provider: &ProviderArgs) -> Result<ExitCode> {
    let services = match provider::open_to_look(provider).await? {
        Some(opened) => provider::dispatch!(opened, provider => provider.services().await?),
        None => Vec::new(),
    };
    if args.json {
        println!("{:#}", json!({"services": services.iter().map(document).collect::<Vec<_>>()}));
    } else if services.is_empty() {
        narrate::note("there is no service");
    } else {
        println!("{}", table(&services));
    }
    Ok(ExitCode::Done)
}

fn document(service: &Service) -> serde_json::Value {
    json!({
        "service": service.spec.name,
        "url": service.url,
        "dns": service.spec.dns,
        "running": service.running,
        "groups": service.groups.keys().collect::<Vec<_>>(),
    })
}

fn table(services: &[Service]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["service", "url", "dns", "groups", "runs"]);
    for service in services {
        let groups: Vec<_> = service.groups.keys().map(String::as_str).collect();
        let runs = if service.running { "yes" } else { "no: run `deployer repair`" };
        table.add_row([&service.spec.name, &service.url, &service.spec.dns, &groups.join("\n"), runs]);
    }
    table
}
