//! moto, which answers as AWS does.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::{Command, narrate};

/// Installs moto from PyPI into a virtual environment at `environment`, unless it is there. Its Python.
pub fn install(environment: &Path) -> Result<PathBuf> {
    let python = environment.join("bin/python");
    if !server(environment).is_file() {
        narrate::step("Installing moto...");
        let venv = Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment);
        venv.run().context("making a place for moto, which needs the Debian package python3-venv")?;
        let pip = Command::new(&python).args(["-m", "pip", "install", "--quiet", "moto[server]==5.*"]);
        pip.run().context("installing moto")?;
    }
    Ok(python)
}

/// The server's program.
pub fn server(environment: &Path) -> PathBuf {
    environment.join("bin/moto_server")
}
