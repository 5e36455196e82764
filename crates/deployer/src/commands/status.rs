//! `deployer status`

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use cli::args::ProviderArgs;
use cli::{ExitCode, narrate};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use jiff::Timestamp;
use provider::{Fleets, Group, Member, Service};
use serde::Serialize;

use crate::journal::{self, Unfinished};
use crate::site::Site;
use crate::target::{Named, Target};

/// Show a service: its groups, their instances, shares of traffic, health and open requests. Starts nothing.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,

    /// Print a JSON document instead of a table.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Status {
    service: String,
    url: String,
    dns: String,
    /// A name server of the host's that knows `dns`, if there is one.
    resolver: Option<SocketAddr>,
    /// Whether the provider's processes run that should.
    running: bool,
    /// The deployment that a killed run left or that is under way, if any.
    unfinished: Option<String>,
    groups: Vec<GroupStatus>,
}

#[derive(Debug, Serialize)]
struct GroupStatus {
    name: String,
    image: String,
    version: Option<String>,
    size: u32,
    /// Share of the traffic in percent.
    weight: u8,
    created: Timestamp,
    /// Until when it is kept for a rollback, if it is.
    retained_until: Option<Timestamp>,
    members: Vec<Member>,
}

/// Reads the service, and prints it.
pub async fn run(args: Args, provider: &ProviderArgs) -> Result<ExitCode> {
    let named = args.target.resolve()?;
    let status = provider::dispatch!(provider::open(provider)?, provider => read(&provider, &named).await?);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        println!("{}  {}  ({})\n{}", status.service, status.url, status.dns, table(&status));
    }
    if !status.running {
        narrate::note("its processes do not run (was the host restarted?): `deployer repair` starts them again");
    }
    if let Some(unfinished) = &status.unfinished {
        narrate::note(&format!("{unfinished}: if no deployer runs, `deployer repair` puts it in order"));
    }
    Ok(ExitCode::Done)
}

async fn read<P: Fleets>(provider: &P, named: &Named) -> Result<Status> {
    let site = Site { provider, service: &named.service };
    let Some(service) = site.read().await? else { return Err(named.missing("reading the status").into()) };
    let entries = site.entries().await?;
    let Service { spec, url, resolver, groups, running } = service;
    // Where nothing runs there is nobody to ask for health.
    let mut members = BTreeMap::new();
    for group in groups.keys().filter(|_| running) {
        members.insert(group.clone(), provider.members(site.service, group).await?);
    }
    let status = |(name, Group { spec, weight, created }): (String, Group)| GroupStatus {
        retained_until: journal::retained(&entries).filter(|it| it.0 == name && weight == 0).map(|(_, until)| until),
        members: members.remove(&name).unwrap_or_default(),
        version: spec.tags.get("version").cloned(),
        image: spec.image,
        size: spec.size,
        name,
        weight,
        created,
    };
    let unfinished = journal::unfinished(&entries).as_ref().map(describe);
    let groups = groups.into_iter().map(status).collect();
    Ok(Status { service: spec.name, url, dns: spec.dns, resolver, running, unfinished, groups })
}

fn describe(unfinished: &Unfinished) -> String {
    match unfinished {
        Unfinished::UnderWay(rollout) | Unfinished::Baked(rollout) => {
            format!("the switch to {} has begun", rollout.group)
        }
        Unfinished::BackingOut(rollout) => format!("{} is being taken back", rollout.group),
        Unfinished::Destroying => "the service is being destroyed".to_owned(),
    }
}

fn table(status: &Status) -> Table {
    let mut table = Table::new();
    let header =
        ["group", "image", "traffic", "instance", "address", "state", "starts", "health", "open", "last check"];
    table.load_style(NOTHING).set_header(header);
    for group in &status.groups {
        let role = match group.retained_until {
            Some(until) => format!("{}\nkept until {until:.0}", group.name),
            None => group.name.clone(),
        };
        let traffic = format!("{} %", group.weight);
        let first = [role, group.image.clone(), traffic];
        if group.members.is_empty() {
            table.add_row(first.iter().map(String::as_str).chain(["none of its instances runs"]));
        }
        let blank = [const { String::new() }; 3];
        for (number, member) in group.members.iter().enumerate() {
            let begin = if number == 0 { &first } else { &blank };
            table.add_row(begin.iter().cloned().chain(cells(member)));
        }
    }
    table
}

fn cells(member: &Member) -> [String; 7] {
    let word = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    };
    [
        member.instance.clone(),
        member.address.map(|address| address.to_string()).unwrap_or_default(),
        word(serde_json::to_value(member.state)),
        member.starts.to_string(),
        word(serde_json::to_value(member.health)),
        member.open_requests.to_string(),
        member.last_check.clone(),
    ]
}
