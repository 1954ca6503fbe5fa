//! Two linked brokers as processes, and what happens to them.

use std::env;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::harness::Setup;
use crate::line::Address;
use crate::process::Process;
use crate::relay::Relay;

/// What happens to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// It is killed and started again.
    Kill,
    /// All its connections are cut; it goes on.
    Cut,
}

/// One broker and the ways to it.
pub(crate) struct Site {
    name: &'static str,
    pub(crate) process: Process,
    harm: Harm,
    address: watch::Sender<Option<std::net::SocketAddr>>,
    /// Where its clients connect to if their connections are to be cut.
    clients: Relay,
    /// Where its peer connects to.
    peer: Relay,
}

impl Site {
    async fn start(
        name: &'static str,
        other: (&str, &Relay),
        clients: Relay,
        peer: Relay,
        harm: Harm,
        durability: &str,
    ) -> Self {
        let setup = Setup::new()
            .cluster(name)
            .io("threads = 2\nplacement = \"spread\"")
            .mqtt("max_mqueue_len = 10000000")
            .listeners(
                "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"any\"\n\
                 allow_insecure = true\n",
            )
            .links(&format!(
                "[[cluster.links]]\nname = \"{}\"\nserver = \"{}\"\nclientid = \"clink-{name}-\"\ntopics = [\"x/#\"]\n\
                 pool_size = 2\npeer.allow_unauthenticated = true\nssl.enable = false\n",
                other.0,
                other.1.address()
            ));
        let process = Process::start_as(setup, Some(durability)).await;
        let site = Self { name, process, harm, address: watch::Sender::new(None), clients, peer };
        site.open();
        site
    }

    /// Says where it is.
    fn open(&self) {
        let address = self.process.address();
        for relay in [&self.clients, &self.peer] {
            relay.lead_to(address);
            relay.heal();
        }
        let address = if self.harm == Harm::Cut { self.clients.address() } else { address };
        self.address.send_replace(Some(address));
    }

    pub(crate) fn address(&self) -> Address {
        self.address.subscribe()
    }

    /// It happens.
    pub(crate) fn strike(&mut self) {
        if self.harm == Harm::Cut {
            self.clients.reset();
            self.peer.reset();
            return;
        }
        self.address.send_replace(None);
        self.process.kill();
    }

    /// It is there again; how long that took. It may be killed while it starts.
    pub(crate) async fn recover(&mut self, killed_after_lines: Option<usize>) -> Option<Duration> {
        if self.harm == Harm::Cut {
            return None;
        }
        if let Some(lines) = killed_after_lines {
            self.process.restart_partly(lines).await;
            self.process.kill();
        }
        let took = self.process.restart().await;
        self.open();
        Some(took)
    }
}

impl Drop for Site {
    /// Leaves what a failed run has written where `KEEP` says.
    fn drop(&mut self) {
        if let Ok(folder) = env::var("KEEP")
            && thread::panicking()
        {
            self.process.kill();
            self.process.copy_to(&Path::new(&folder).join(self.name));
        }
    }
}

/// Both of them, A first.
pub(crate) async fn start(harm: Harm, durability: &str) -> [Site; 2] {
    let open = || Relay::open(Duration::ZERO);
    let (to_a, to_b) = (open().await, open().await);
    let a = Site::start("A", ("B", &to_b), open().await, to_a, harm, durability).await;
    let b = Site::start("B", ("A", &a.peer), open().await, to_b, harm, durability).await;
    [a, b]
}
