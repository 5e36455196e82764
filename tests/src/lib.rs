//! Holds only `suite/`, one test binary with a module for each stage.
