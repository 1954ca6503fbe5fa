//! `tombolo demo`: two linked clusters on this machine.

use super::Exit;
use super::Failure;

// SEAM: the demo is started here.
/// Runs two linked clusters on loopback until Ctrl-C.
pub fn demo() -> Result<(), Failure> {
    Err(Failure::new(Exit::Other, "this build holds no broker to run"))
}
