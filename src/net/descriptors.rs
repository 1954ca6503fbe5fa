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

/// What all listeners together may take, one permit for a connection: the limit less a reserve, which grows by what others
/// need. Under a low limit the reserve is a third of it.
#[derive(Debug)]
pub struct ForClients {
    limit: usize,
    /// Of the limit in force, those given to clients.
    given: usize,
    permits: Arc<Semaphore>,
}

impl ForClients {
    /// Under the limit of this process, where others need so many.
    #[must_use]
    pub fn new(for_others: usize) -> Self {
        let limit = rustix::process::getrlimit(Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(Semaphore::MAX_PERMITS);
        Self::under(limit, for_others)
    }

    fn under(limit: usize, for_others: usize) -> Self {
        let given = share(limit, for_others);
        Self { limit, given, permits: Arc::new(Semaphore::new(given)) }
    }

    /// A permit of these is taken for each connection.
    #[must_use]
    pub fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    /// From now on others need so many: takes them from clients, or gives them back. How many clients have that others
    /// need.
    pub fn leave(&mut self, for_others: usize) -> usize {
        let wanted = share(self.limit, for_others);
        self.permits.add_permits(wanted.saturating_sub(self.given));
        let more = self.given.saturating_sub(wanted);
        let missing = more - self.permits.forget_permits(more);
        self.given = wanted + missing;
        missing
    }
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
    fn what_others_need_is_taken_from_clients_and_given_back_as_far_as_it_was_taken() {
        let free = |clients: &ForClients| clients.permits().available_permits();
        let mut clients = ForClients::under(1_000, 0);
        assert_eq!((free(&clients), clients.leave(100), free(&clients)), (936, 0, 836));
        assert_eq!((clients.leave(0), free(&clients)), (0, 936));
        // A low limit leaves a third whatever is needed: nothing is taken, so nothing comes back.
        let mut clients = ForClients::under(30, 0);
        assert_eq!((free(&clients), clients.leave(200), free(&clients)), (20, 0, 20));
        assert_eq!((clients.leave(0), free(&clients)), (0, 20));
        // Here a part of it is.
        let mut clients = ForClients::under(300, 10);
        assert_eq!((free(&clients), clients.leave(500), free(&clients)), (226, 0, 200));
        assert_eq!((clients.leave(10), free(&clients)), (0, 226));
    }

    #[test]
    fn what_clients_hold_is_missing_and_is_not_given_back() {
        let mut clients = ForClients::under(1_000, 0);
        let held = Arc::clone(clients.permits()).try_acquire_many_owned(900).unwrap();
        assert_eq!((clients.leave(100), clients.permits().available_permits()), (64, 0));
        assert_eq!((clients.leave(0), clients.permits().available_permits()), (0, 36));
        drop(held);
        assert_eq!(clients.permits().available_permits(), 936);
    }

    #[test]
    fn the_limit_can_be_raised_to_the_hard_one() {
        let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise_limit(), hard);
        assert_eq!(rustix::process::getrlimit(Resource::Nofile).current, hard);
    }
}
