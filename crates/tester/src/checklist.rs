//! What an image is tested against: a gossfile that has been read.

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context, Result, anyhow};
use cli::BadInput;
use manifest::component::Test;
use manifest::{Identity, Manifest};
use probe::gossfile::{Gossfile, Resource, Subject};
use provider::{Store, archive};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

/// A gossfile without faults, and how patient to be.
pub(crate) struct Checklist {
    /// The gossfile as it goes into the instance.
    pub(crate) file: NamedTempFile,
    /// SHA-256 of its content.
    pub(crate) digest: Identity,
    /// How long an instance may take until its system is up.
    pub(crate) boot: Duration,
    /// How long the checks may take by their own time-outs.
    pub(crate) checks: Duration,
}

impl Checklist {
    /// Reads `given`, or else the gossfile of the component at the manifest's revision.
    pub(crate) async fn fetch(
        manifest_path: &Path,
        manifest: &Manifest,
        given: Option<&Path>,
        scratch: &Path,
        cache: &Path,
    ) -> Result<Self> {
        let (name, text) = match given {
            Some(path) => (path, read(path, path)?),
            None => {
                let service =
                    manifest.component.service().map_err(|error| BadInput::from(error).in_file(manifest_path))?;
                let name = Path::new(&service.test.gossfile);
                (name, from_store(manifest_path, manifest, name, scratch, cache).await?)
            }
        };
        let checks = patience(&parse(name, &text)?);
        let file = NamedTempFile::new_in(scratch).context("creating a file for the gossfile")?;
        fs::write(&file, &text).with_context(|| format!("writing {}", file.path().display()))?;
        let digest = Identity::sha256(hex::encode(Sha256::digest(&text)));
        let test = manifest.component.test.as_ref();
        let boot = Duration::from_secs(test.map_or(Test::BOOT_SECONDS, |test| test.boot_seconds).into());
        Ok(Self { file, digest, boot, checks })
    }
}

async fn from_store(
    manifest_path: &Path,
    manifest: &Manifest,
    name: &Path,
    scratch: &Path,
    cache: &Path,
) -> Result<String> {
    let (Some(source), Some(artifact)) = (&manifest.source, &manifest.artifact) else {
        let remedy = "run `artifact build` first, or name a gossfile with --gossfile";
        return Err(BadInput::new("reading the manifest", "it has no artifact yet", remedy)
            .in_file(manifest_path)
            .into());
    };
    let tree = tempfile::Builder::new().prefix("tree-").tempdir_in(scratch)?;
    let store = Store::open(&artifact.store, cache).await?;
    archive::unpack(&store, &source.archive, tree.path()).await?;
    read(&tree.path().join(name), name)
}

/// Reads `path`, which the user knows as `name`.
fn read(path: &Path, name: &Path) -> Result<String> {
    let refuse = |why: String| BadInput::new("reading the gossfile", why, "check the path").in_file(name).into();
    fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refuse("there is no such file".to_owned()),
        io::ErrorKind::InvalidData | io::ErrorKind::IsADirectory => refuse(format!("it is not a text file ({error})")),
        _ => anyhow!(error).context(format!("reading the gossfile {}", path.display())),
    })
}

fn parse(name: &Path, text: &str) -> Result<Gossfile, BadInput> {
    Gossfile::parse(&name.display().to_string(), text).map_err(|fault| {
        BadInput::new("reading the gossfile", fault.why, fault.remedy).in_file(name).at_line(fault.line)
    })
}

fn patience(gossfile: &Gossfile) -> Duration {
    let own = |resource: &Resource| match &resource.subject {
        Subject::Command(command) => command.timeout * (command.retries + 1) + command.retry_delay * command.retries,
        Subject::Http(request) => request.timeout,
        _ => Duration::ZERO,
    };
    gossfile.resources.iter().map(own).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_the_file_as_the_component_does_and_the_line() {
        let fault = parse(Path::new("test/goss.yaml"), "file:\n  /etc/motd:\n    exist: true\n").unwrap_err();
        let message = fault.to_string();
        assert!(message.starts_with("reading the gossfile: test/goss.yaml:3: "), "{message}");
        assert!(message.contains("did you mean `exists`?"), "{message}");
    }

    #[test]
    fn checks_may_take_as_long_as_their_own_time_outs_say() {
        let text = "
command:
  'true': {exit-status: 0, timeout: 2000, retry_count: 2, retry_delay: 500}
http:
  http://localhost/: {status: 200, timeout: 700}
file:
  /etc/motd: {exists: true}
";
        let gossfile = parse(Path::new("goss.yaml"), text).unwrap();
        assert_eq!(patience(&gossfile).as_millis(), 3 * 2000 + 2 * 500 + 700);
    }
}
