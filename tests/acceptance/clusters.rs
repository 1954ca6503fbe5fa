//! Several brokers in this process, linked through relays.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time;
use tombolo::broker::links::Link;
use tombolo::broker::server::Server;
use tombolo::config;
use tombolo::config::Environment;
use tombolo::mqtt::packet::Version;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::hello;
use crate::relay::Relay;

/// Who is linked with whom.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Each with each: a pair, a ring of three, a mesh.
    Mesh(usize),
    /// Each with the first one.
    Star(usize),
}

impl Shape {
    pub(crate) fn count(self) -> usize {
        match self {
            Self::Mesh(count) | Self::Star(count) => count,
        }
    }

    pub(crate) fn links(self, one: usize, other: usize) -> bool {
        one != other && (matches!(self, Self::Mesh(_)) || one == 0 || other == 0)
    }
}

/// One way between two clusters.
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) relay: Relay,
}

/// See the module.
pub(crate) struct Clusters {
    pub(crate) shape: Shape,
    pub(crate) edges: Vec<Edge>,
    servers: Vec<Option<Server>>,
    folder: TempDir,
}

pub(crate) fn name(index: usize) -> String {
    format!("c{index}")
}

impl Clusters {
    /// Starts all of them, and waits until each knows what its peers want.
    pub(crate) async fn start(shape: Shape) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("acl.conf"), "{allow, all}.\n").unwrap();
        let mut edges = Vec::new();
        for from in 0..shape.count() {
            for to in (0..shape.count()).filter(|to| shape.links(from, *to)) {
                edges.push(Edge { from, to, relay: Relay::open(Duration::ZERO).await });
            }
        }
        let servers = (0..shape.count()).map(|_| None).collect();
        let mut clusters = Self { shape, edges, servers, folder };
        for index in 0..shape.count() {
            clusters.begin(index).await;
        }
        for edge in &clusters.edges {
            edge.relay.heal();
        }
        clusters
    }

    fn text(&self, index: usize) -> String {
        let (name, dir) = (name(index), self.folder.path().display());
        let mut text = format!(
            "[cluster]\nname = \"{name}\"\nnode = \"{name}@host\"\n[data]\ndir = \"{dir}/{name}\"\ndurability = \"memory\"\n\
             [mqtt]\nmax_inflight = 1000\nmax_mqueue_len = 1000000\n[authentication]\nallow_anonymous = true\n\
             [authorization]\nfile = \"{dir}/acl.conf\"\n\
             [[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"any\"\n\
             allow_insecure = true\n"
        );
        for edge in self.edges.iter().filter(|edge| edge.from == index) {
            let (peer, server) = (self::name(edge.to), edge.relay.address());
            text += &format!(
                "[[cluster.links]]\nname = \"{peer}\"\nserver = \"{server}\"\nclientid = \"clink-{name}-\"\n\
                 topics = [\"x/#\"]\npool_size = 2\npeer.allow_unauthenticated = true\nssl.enable = false\n"
            );
        }
        text
    }

    /// Starts a cluster, for the first time or with nothing of its former life.
    pub(crate) async fn begin(&mut self, index: usize) {
        let text = self.text(index);
        let settings = config::parse("test.toml", &text, &Environment::default())
            .unwrap_or_else(|errors| panic!("{errors:#?}\n{text}"));
        let server = Server::start(settings).await.unwrap();
        for edge in self.edges.iter().filter(|edge| edge.to == index) {
            edge.relay.lead_to(server.address("tcp:default").unwrap());
        }
        self.servers[index] = Some(server);
    }

    /// Ends a cluster. With its relays closed its peers do not see that from a crash.
    pub(crate) async fn end(&mut self, index: usize) {
        self.servers[index].take().unwrap().stop().await;
    }

    pub(crate) fn server(&self, index: usize) -> &Server {
        self.servers[index].as_ref().unwrap()
    }

    /// A client of one cluster.
    pub(crate) async fn join(&self, index: usize, id: &str) -> Client {
        let stream = TcpStream::connect(self.server(index).address("tcp:default").unwrap()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut client = Client::over(stream);
        assert_eq!(client.connect(&hello(Version::V5, id)).await, Got::ConnAck(false, 0));
        client
    }

    /// The link from one cluster to another.
    pub(crate) fn link(&self, from: usize, to: usize) -> Arc<Link> {
        self.server(from).broker().links.get(&name(to)).unwrap()
    }

    /// How many routes a cluster knows of a peer.
    pub(crate) fn known(&self, at: usize, peer: usize) -> usize {
        self.link(at, peer).routes.lock().len()
    }

    /// A sum over all links.
    pub(crate) fn sum(&self, of: impl Fn(&Link) -> i64) -> i64 {
        self.edges.iter().map(|edge| of(&self.link(edge.from, edge.to))).sum()
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, limit: Duration, holds: impl Fn(&Self) -> bool) {
        let reached = time::timeout(limit, async {
            while !holds(self) {
                time::sleep(Duration::from_millis(10)).await;
            }
        });
        let states = || self.edges.iter().map(|edge| (edge.from, edge.to, self.known(edge.to, edge.from)));
        assert!(reached.await.is_ok(), "{what}: not within {limit:?}; {:?}", states().collect::<Vec<_>>());
    }

    /// Waits until every link is up and every cluster knows the one filter of its peers.
    pub(crate) async fn linked(&self, limit: Duration) {
        let count = self.edges.len() as i64;
        self.until("all are linked", limit, |all| {
            all.sum(|link| link.metrics.up.value()) == count
                && all.edges.iter().all(|edge| all.known(edge.to, edge.from) == 1)
        })
        .await;
    }
}
