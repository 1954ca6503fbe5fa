//! File descriptors: how many this process may have, and what is done when they run out.

use std::fs::File;
use std::sync::Arc;

use rustix::process::Resource;
use rustix::process::Rlimit;
use tokio::sync::Semaphore;

/// Kept from clients, beside what links and threads need: for listeners, log, reload, HTTP and the admin socket, so that an operator
/// gets in when clients do not.
const RESERVED: usize = 64;

/// Raises the limit to what an administrator allows at most. The usual soft limit of 1024 is there for programs that
/// call select(2), which we do not. Gives the limit in force.
pub fn raise_limit() -> Option<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of file descriptors stays as it is");
            limit.current
        }
    }
}

/// What all listeners together may take, one permit for a connection: the limit less a reserve, which grows by
/// `for_others`. Under a low limit the reserve is a third of it.
#[must_use]
pub fn for_clients(for_others: usize) -> Arc<Semaphore> {
    let limit = rustix::process::getrlimit(Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(share(limit, for_others)))
}

fn share(limit: usize, for_others: usize) -> usize {
    let reserve = RESERVED.saturating_add(for_others).min(limit / 3);
    (limit - reserve).min(Semaphore::MAX_PERMITS)
}

/// A descriptor that is held for nothing, to be given up when there is no other.
#[must_use]
pub fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_a_reserve() {
        for (limit, for_links, expected) in
            [(20_000, 0, 19_936), (20_000, 900, 19_036), (1_024, 900, 683), (64, 0, 43), (0, 0, 0)]
        {
            assert_eq!(share(limit, for_links), expected, "{limit}, {for_links}");
        }
        assert_eq!(share(usize::MAX, 0), Semaphore::MAX_PERMITS);
    }

    #[test]
    fn the_limit_can_be_raised_to_the_hard_one() {
        let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise_limit(), hard);
        assert_eq!(rustix::process::getrlimit(Resource::Nofile).current, hard);
    }
}
