//! A connection on the books, for as long as its task lives.

use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::client::Client;
use crate::broker::connection::Connection;
use crate::metrics::labels::ListenerType;
use crate::net::admission::Place;
use crate::net::admission::Settled;
use crate::net::clock;
use crate::session::Ending;

/// A connection on the books, with what counts it against the maxima. Its task may be aborted, when its listener is closed: the session must not keep a
/// connection then that nobody drives.
pub(super) struct Present {
    broker: Arc<Broker>,
    label: ListenerType,
    client: Arc<Client>,
    epoch: u64,
    /// Whether it has left by itself.
    pub(super) left: bool,
    _place: Place,
    _settled: Settled,
}

impl Present {
    pub(super) fn new(
        broker: &Arc<Broker>,
        label: ListenerType,
        connection: &Connection,
        place: Place,
        settled: Settled,
    ) -> Self {
        broker.metrics.broker.connections[label].inc();
        let (client, epoch) = (Arc::clone(&connection.client), connection.epoch);
        Self {
            broker: Arc::clone(broker),
            label,
            client,
            epoch,
            left: false,
            _place: place,
            _settled: settled,
        }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.broker.metrics.broker.connections[self.label].dec();
        if !self.left {
            self.broker.detach(&self.client, self.epoch, Ending::WithWill, clock::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::accept::Endpoint;
    use crate::broker::accept::become_client;
    use crate::broker::accept::serve;
    use crate::broker::client::State;
    use crate::broker::identity::Identity;
    use crate::broker::threads::Mailbox;
    use crate::net::listener::Accepted;
    use crate::net::listener::Stream;

    /// What an idle connection keeps, with its identity, its socket and a few links between them: a field of a
    /// kilobyte for each connection is seen here, not by whoever holds a hundred thousand.
    #[test]
    fn an_idle_connection_stays_small() {
        fn future<F>(
            _: impl FnOnce(Arc<Broker>, Arc<Endpoint>, Accepted<Stream>, Option<Arc<Mailbox>>) -> F,
        ) -> usize {
            size_of::<F>()
        }
        let sizes = [future(serve), size_of::<Connection>(), size_of::<State>(), size_of::<Identity>()];
        // It is moved twice: what few of them need, such as TLS or a chain of authenticators, is in boxes.
        assert!(future(become_client) <= 2560, "before it is a client's: {} bytes", future(become_client));
        println!("task, connection, session, identity: {sizes:?} bytes");
        assert!(sizes[0] <= 24, "with tokio's own the task is to fit into 128 bytes: {sizes:?}");
        assert!(sizes.iter().sum::<usize>() <= 920, "{sizes:?}");
    }
}
