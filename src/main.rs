//! The `tombolo` program: parse the command line, run it, turn an error into an exit code.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Tasks and sockets of the runtime are aligned to 128 bytes, for which the C library's allocator leaves a gap in front of
/// each and takes its slow path.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    tombolo::admin::cli::main()
}
