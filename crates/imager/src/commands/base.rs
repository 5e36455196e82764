//! `imager base`

use anyhow::Result;
use cli::{BadInput, ExitCode, narrate};
use jiff::Timestamp;
use provider::local::HVM;
use provider::{Images, Provider, Registration, SourceImage};

use crate::base::{self, BaseSpec};

/// Days after which a base image is worth a word: its packages are as old as it is.
const OLD_DAYS: i64 = 30;

/// Arguments of `imager base`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Debian suite; without it, the host's own.
    #[arg(long)]
    suite: Option<String>,
    /// Size of the disk in GiB.
    #[arg(long, value_name = "GIB", default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=1024))]
    size: u64,
    /// Make a new one, with today's packages, even if there is one.
    #[arg(long)]
    refresh: bool,
}

/// Makes a base image, or finds the one that there is, and prints its id.
pub(crate) async fn run(provider: &Provider, args: Args) -> Result<ExitCode> {
    let Some(provider) = provider.local() else {
        let remedy = "use --provider local, and bring it there with `imager publish`";
        return Err(BadInput::new("making a base image", "one is made on this machine only", remedy).into());
    };
    let suite = args.suite.unwrap_or_else(base::host_suite);
    if suite.is_empty() || !suite.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        let why = format!("'{suite}' is not the name of a suite");
        return Err(BadInput::new("making a base image", why, "name one as Debian does, such as bookworm").into());
    }
    let _lock = provider.lock(&format!("base-{suite}"), &format!("the base image {suite}"))?;
    let known = provider.find_source(&SourceImage { name: suite.clone() }).await?;
    if let Some(image) = known.filter(|_| !args.refresh) {
        let days = Timestamp::now().duration_since(image.created).as_hours() / 24;
        if days >= OLD_DAYS {
            narrate::note(&format!("{} is {days} days old; `imager base --refresh` makes a new one", image.name));
        }
        println!("{}", image.id);
        narrate::unchanged(&format!("base image {} is there already", image.name));
        return Ok(ExitCode::Done);
    }
    let scratch = tempfile::Builder::new().prefix("base-").tempdir_in(provider.scratch()?)?;
    let disk = scratch.path().join("disk.raw");
    base::make(&BaseSpec { suite: suite.clone(), size: args.size << 30 }, &disk, scratch.path())?;
    let registration = Registration {
        name: format!("debian-{suite}-{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ")),
        tags: [("suite".to_owned(), suite.clone())].into(),
        replace: false,
        publication: manifest::Publication::default(),
    };
    narrate::step("Registering the base image...");
    let image = provider.adopt_disk(&disk, HVM, &registration)?;
    provider.alias(&suite, &image.id).await?;
    if let Some(version) = base::version_of(&suite)? {
        provider.alias(&format!("debian-{version}"), &image.id).await?;
    }
    println!("{}", image.id);
    Ok(ExitCode::Done)
}
