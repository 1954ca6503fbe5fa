//! The `tombolo` program: parse the command line, run it, turn an error into an exit code.
fn main() {}
