//! `cargo xtask setup`

use anyhow::{Context, Result, bail};
use cli::args::ProviderName;
use cli::host::{self, Tool};
use cli::{Command, ExitCode, narrate};

/// What building config-agent needs: the crate for etcd compiles etcd's protocol files.
pub const PROTOCOL_COMPILER: [Tool; 2] = [
    Tool { program: "protoc", package: "protobuf-compiler", used_for: "building config-agent" },
    Tool {
        program: "/usr/include/google/protobuf/descriptor.proto",
        package: "libprotobuf-dev",
        used_for: "building config-agent",
    },
];

/// Name the programs that the line needs and this machine lacks, and install them with apt.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the command that installs what is missing instead of running it.
    #[arg(long)]
    no_install: bool,
}

/// Finds what is missing, and installs it.
pub fn run(args: &Args) -> Result<ExitCode> {
    let missing = host::missing_tools(ProviderName::Local);
    if missing.is_empty() {
        narrate::unchanged("every program that the line needs is here");
        return Ok(ExitCode::Done);
    }
    if args.no_install {
        name(&missing, narrate::detail);
        println!("{}", install_command(&missing));
        return Ok(ExitCode::CouldNotRun);
    }
    install(&missing, narrate::detail, |command| {
        command.narrated().run()?;
        Ok(())
    })?;
    Ok(ExitCode::Done)
}

/// Installs the packages of `missing`. `say` shows a line, `run` runs a command to its end.
pub fn install(missing: &[Tool], say: impl Fn(&str), mut run: impl FnMut(Command) -> Result<()>) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    name(missing, &say);
    if !rustix::process::geteuid().is_root() {
        bail!("installing packages needs root: run `{}` as root, then this again", install_command(missing));
    }
    // A machine that has been used knows its packages already; only a fresh one has to ask for the lists.
    if run(install_command(missing)).is_err() {
        cli::interrupt::check()?;
        say("the package lists are missing or old: updating them");
        run(apt_get().arg("update")).context("updating the package lists")?;
        run(install_command(missing)).context("installing packages")?;
    }
    let absent: Vec<_> = missing.iter().filter(|tool| !host::has(tool.program)).map(|tool| tool.program).collect();
    if absent.is_empty() {
        return Ok(());
    }
    bail!("the packages are installed, but these programs are still missing: {}", absent.join(", "))
}

/// The command that installs the packages of `missing`.
pub fn install_command(missing: &[Tool]) -> Command {
    let mut packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    apt_get().args(["install", "--yes", "--no-install-recommends"]).args(packages)
}

/// Names what is missing and what it is for.
pub fn name(missing: &[Tool], say: impl Fn(&str)) {
    for Tool { program, package, used_for } in missing {
        say(&format!("missing: {program} (Debian package {package}), for {used_for}"));
    }
}

fn apt_get() -> Command {
    Command::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_with_two_programs_is_installed_once() {
        let tool = |program| Tool { program, package: "e2fsprogs", used_for: "" };
        let command = install_command(&[tool("mke2fs"), tool("e2fsck")]).to_string();
        assert_eq!(command, "apt-get install --yes --no-install-recommends e2fsprogs");
    }
}
