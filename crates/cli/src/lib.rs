//! What every Kiln binary does alike.
//!
//! * [`run`] is the body of each `main`: logging, signals, and the mapping of
//!   errors to [`ExitCode`]s.
//! * [`Command`] is the only way to start a child process.
//! * [`narrate`] tells on stderr what is going on; stdout is for data.
//! * [`lock`] takes named locks and says who holds them.
//! * [`BadInput`] is an error that names file, line, reason and remedy.

pub mod args;
mod bad_input;
pub mod cgroup;
mod command;
mod exit;
pub mod host;
pub mod interrupt;
pub mod lock;
pub mod narrate;
pub mod process;

pub use bad_input::BadInput;
pub use command::{Child, Command, CommandError, Output, redact};
pub use exit::{EXIT_CODES, ExitCode, run};
