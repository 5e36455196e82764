//! Packages, from the databases of dpkg and rpm.

use std::path::Path;
use std::time::Duration;

use super::{Found, unknown};
use crate::exec;

/// Both answer in milliseconds; a database under repair may take a while.
const TIMEOUT: Duration = Duration::from_secs(30);

const DPKG: &str = "/var/lib/dpkg/status";
const RPM: [&str; 2] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm"];

#[derive(Debug, PartialEq, Eq)]
pub(super) struct PackageFacts {
    /// More than one where several architectures or kernels are installed.
    versions: Vec<String>,
}

/// Asks dpkg where it has a database, else rpm. Debian ships an rpm that knows no
/// package, so the database decides and not the program.
pub(super) fn gather(name: &str) -> Result<PackageFacts, String> {
    let versions = if Path::new(DPKG).exists() {
        dpkg_versions(&ask("dpkg-query", &["-W", "-f", "${Status}\\t${Version}\\n", "--", name])?)
    } else if RPM.iter().any(|path| Path::new(path).exists()) {
        rpm_versions(&ask("rpm", &["-q", "--nosignature", "--nodigest", "--qf", "%{VERSION}\\n", "--", name])?)
    } else {
        return Err("this machine has neither a dpkg nor an rpm database".to_owned());
    };
    Ok(PackageFacts { versions })
}

/// Both exit 1 for a package that they do not know, which rpm also says on stdout.
fn ask(program: &str, arguments: &[&str]) -> Result<String, String> {
    let answer = exec::run(program, arguments, TIMEOUT).map_err(|error| error.to_string())?;
    match answer.status {
        0 => Ok(answer.stdout),
        1 => Ok(String::new()),
        status => Err(format!("{program} exited {status}: {}", answer.stderr.trim())),
    }
}

impl PackageFacts {
    pub(super) fn property(&self, property: &str) -> Result<Found, String> {
        Ok(match property {
            "installed" => (!self.versions.is_empty()).into(),
            "versions" => self.versions.clone().into(),
            _ => return Err(unknown(property)),
        })
    }
}

/// A package that was removed but not purged is still known to dpkg.
fn dpkg_versions(output: &str) -> Vec<String> {
    let version = |line: &str| {
        let (status, version) = line.split_once('\t')?;
        // Want, error, status: `hold ok installed` is installed as well.
        status.ends_with(" ok installed").then(|| version.to_owned())
    };
    output.lines().filter_map(version).collect()
}

fn rpm_versions(output: &str) -> Vec<String> {
    output.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dpkg_calls_installed() {
        for (output, versions) in [
            ("install ok installed\t2.36-9+deb12u10\n", vec!["2.36-9+deb12u10"]),
            ("hold ok installed\t1:9.18.33-1\n", vec!["1:9.18.33-1"]),
            ("install ok installed\t13.2.0\ninstall ok installed\t13.2.0\n", vec!["13.2.0", "13.2.0"]),
            ("deinstall ok config-files\t1.22.1-9\n", vec![]),
            ("unknown ok not-installed\t\n", vec![]),
            ("install ok half-configured\t1.22.1-9\n", vec![]),
        ] {
            assert_eq!(dpkg_versions(output), versions, "{output}");
        }
    }
}
