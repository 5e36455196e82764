//! `deployer status`

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use cli::args::ProviderArgs;
use cli::{ExitCode, narrate};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use jiff::Timestamp;
use provider::{Fleets, Group, InstanceState, Member, Service};
use serde::Serialize;

use crate::journal::{self, Unfinished};
use crate::site::Site;
use crate::target::{Named, Target};

const READING: &str = "reading the status";

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

impl Status {
    /// What to say where the provider's own processes do not run: with them its instances may have ended, or serve on.
    fn what_does_not_run(&self) -> Option<String> {
        if self.running {
            return None;
        }
        let members = self.groups.iter().flat_map(|group| &group.members);
        let size: u32 = self.groups.iter().map(|group| group.size).sum();
        Some(match members.filter(|member| member.state == InstanceState::Running).count() {
            0 => "nothing of it runs (was the host restarted?): `deployer repair` starts it again".to_owned(),
            run => format!(
                "{run} of its {size} instances run, but the provider's own processes do not all: nobody watches the \
                 instances, and none that ends is started again; `deployer repair` mends that"
            ),
        })
    }
}

/// Reads the service, and prints it.
pub async fn run(args: Args, provider: &ProviderArgs) -> Result<ExitCode> {
    let named = args.target.resolve().await?;
    let Some(opened) = provider::open_to_look(provider).await? else { return Err(named.missing(READING).into()) };
    let status = provider::dispatch!(opened, provider => read(&provider, &named).await?);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        println!("{}  {}  ({})\n{}", status.service, status.url, status.dns, table(&status));
    }
    if let Some(note) = status.what_does_not_run() {
        narrate::note(&note);
    }
    if let Some(unfinished) = &status.unfinished {
        narrate::note(&format!("{unfinished}: if no deployer runs, `deployer repair` puts it in order"));
    }
    Ok(ExitCode::Done)
}

async fn read<P: Fleets>(provider: &P, named: &Named) -> Result<Status> {
    let site = Site { provider, service: &named.service, section: None };
    let Some(service) = site.read().await? else { return Err(named.missing(READING).into()) };
    let entries = site.entries().await?;
    let Service { spec, url, resolver, groups, running, .. } = service;
    let mut members = BTreeMap::new();
    for group in groups.keys() {
        members.insert(group.clone(), provider.members(site.service, group).await?);
    }
    let status = |(name, Group { spec, resized, weight, created }): (String, Group)| GroupStatus {
        retained_until: journal::retained(&entries).filter(|it| it.0 == name && weight == 0).map(|(_, until)| until),
        members: members.remove(&name).unwrap_or_default(),
        version: spec.tags.get("version").cloned(),
        image: spec.image,
        size: resized.unwrap_or(spec.size),
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
            table.add_row(first.iter().map(String::as_str).chain(["it has no instances"]));
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
        member.open_requests.map_or_else(|| "?".to_owned(), |open| open.to_string()),
        member.last_check.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use provider::MemberHealth;

    use super::*;

    fn status(running: bool, states: &[InstanceState]) -> Status {
        let member = |state: &InstanceState| Member {
            instance: "i-0".to_owned(),
            state: *state,
            address: None,
            starts: 1,
            health: MemberHealth::Unknown,
            open_requests: Some(0),
            weight: 0,
            last_check: String::new(),
        };
        let group = GroupStatus {
            name: "hello-local-v000".to_owned(),
            image: "img-0".to_owned(),
            version: None,
            size: 2,
            weight: 100,
            created: Timestamp::UNIX_EPOCH,
            retained_until: None,
            members: states.iter().map(member).collect(),
        };
        let (service, url, dns) = ("hello-local".to_owned(), String::new(), String::new());
        Status { service, url, dns, resolver: None, running, unfinished: None, groups: vec![group] }
    }

    #[test]
    fn instances_that_serve_unwatched_are_told_from_a_host_that_was_restarted() {
        use InstanceState::{Pending, Running};
        assert_eq!(status(true, &[Running, Running]).what_does_not_run(), None);
        let note = |states: &[InstanceState]| status(false, states).what_does_not_run().unwrap();
        let (unwatched, nothing) = (note(&[Running, Running]), note(&[Pending, Pending]));
        assert!(unwatched.starts_with("2 of its 2 instances run"), "{unwatched}");
        assert!(nothing.starts_with("nothing of it runs"), "{nothing}");
        assert!([unwatched, nothing].iter().all(|note| note.contains("`deployer repair`")));
    }
}
