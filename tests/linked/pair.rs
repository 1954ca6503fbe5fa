//! Two linked brokers in this process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time;
use tombolo::broker::server::Server;
use tombolo::config;
use tombolo::config::Environment;
use tombolo::mqtt::packet::Version;
use tombolo::net::clock;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::hello;
use crate::proxy::Proxy;

/// What each side wants of the other, and what more it is told about the link.
pub(crate) struct Wishes {
    pub(crate) a: &'static str,
    pub(crate) b: &'static str,
    pub(crate) more: &'static str,
}

/// Everything, both ways.
pub(crate) const EVERYTHING: Wishes = Wishes { a: r##"["#"]"##, b: r##"["#"]"##, more: "" };

/// Connections of each side that carry messages.
const POOL_SIZE: i64 = 2;

/// Clusters A and B.
pub(crate) struct Pair {
    pub(crate) a: Server,
    pub(crate) b: Server,
    /// What A dials to reach B.
    pub(crate) to_b: Proxy,
    /// What B dials to reach A.
    pub(crate) to_a: Proxy,
    _folder: TempDir,
}

/// Writes `ca.pem` and for each cluster `a.pem` and `a.key` into a folder.
pub(crate) fn write_certificates(folder: &Path) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "test authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    fs::write(folder.join("ca.pem"), authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    for name in ["a", "b"] {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, format!("cluster-{name}"));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        fs::write(folder.join(format!("{name}.pem")), params.signed_by(&key, &issuer).unwrap().pem())
            .unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// The configuration of one side, with the rules of `acl/cluster-a.conf` or `-b.conf`.
pub(crate) struct Side<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) peer: &'a str,
    pub(crate) mqtt_port: u16,
    pub(crate) link_port: u16,
    pub(crate) http_port: u16,
    pub(crate) server: String,
    pub(crate) topics: &'a str,
    pub(crate) more: &'a str,
}

impl Side<'_> {
    pub(crate) fn text(&self) -> String {
        let Side { name, peer, mqtt_port, link_port, http_port, server, topics, more, .. } = self;
        let (us, them) = (name.to_lowercase(), peer.to_lowercase());
        let dir = self.folder.display();
        let acl = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("acl/cluster-{us}.conf"));
        let acl = acl.display();
        format!(
            r#"
[cluster]
name = "{name}"
node = "tombolo@{us}"
[data]
dir = "{dir}/data-{us}"
durability = "memory"
[[listeners]]
name = "default"
type = "tcp"
bind = "127.0.0.1:{mqtt_port}"
[[listeners]]
name = "links"
type = "ssl"
bind = "127.0.0.1:{link_port}"
role = "link"
[listeners.ssl]
certfile = "{dir}/{us}.pem"
keyfile = "{dir}/{us}.key"
cacertfile = "{dir}/ca.pem"
[mqtt]
max_mqueue_len = 1000
[authentication]
allow_anonymous = true
[authorization]
file = "{acl}"
[[cluster.links]]
name = "{peer}"
server = "{server}"
clientid = "clink-{name}-"
topics = {topics}
pool_size = {POOL_SIZE}
{more}
[cluster.links.peer]
clientid = "clink-{peer}-"
cert_cn = "cluster-{them}"
[cluster.links.ssl]
cacertfile = "{dir}/ca.pem"
certfile = "{dir}/{us}.pem"
keyfile = "{dir}/{us}.key"
[http]
bind = "127.0.0.1:{http_port}"
"#
        )
    }
}

impl Pair {
    /// Starts both and waits until the link is up both ways.
    pub(crate) async fn start(wishes: &Wishes) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_certificates(folder.path());
        let (to_a, to_b) = (Proxy::open().await, Proxy::open().await);
        let side = |name, peer, topics, proxy: &Proxy| {
            let side = Side {
                folder: folder.path(),
                name,
                peer,
                mqtt_port: 0,
                link_port: 0,
                http_port: 0,
                server: proxy.address().to_string(),
                topics,
                more: wishes.more,
            };
            let text = side.text();
            config::parse("test.toml", &text, &Environment::default())
                .unwrap_or_else(|e| panic!("{e:#?}\n{text}"))
        };
        let a = Server::start(side("A", "B", wishes.a, &to_b)).await.unwrap();
        let b = Server::start(side("B", "A", wishes.b, &to_a)).await.unwrap();
        let pair = Self { a, b, to_b, to_a, _folder: folder };
        pair.heal();
        pair.linked().await;
        pair
    }

    /// Cuts the network between them.
    pub(crate) fn cut(&self) {
        self.to_a.cut();
        self.to_b.cut();
    }

    /// Mends it.
    pub(crate) fn heal(&self) {
        self.to_a.lead_to(self.a.address("ssl:links").unwrap());
        self.to_b.lead_to(self.b.address("ssl:links").unwrap());
    }

    /// Waits until both sides replicate routes and have their connections for messages: what is published at QoS 0 before
    /// that goes nowhere.
    pub(crate) async fn linked(&self) {
        for (side, peer) in [(&self.a, "B"), (&self.b, "A")] {
            until(side, &format!(r#"tombolo_link_up{{peer="{peer}"}}"#), |value| value == 1).await;
            let connections = format!(r#"tombolo_link_connections{{peer="{peer}",dir="out"}}"#);
            until(side, &connections, |value| value == 1 + POOL_SIZE).await;
        }
    }

    /// Waits until the peer of `at` wants this many routes of it.
    pub(crate) async fn wanted(&self, at: &Server, count: i64) {
        let peer = if at.settings().cluster.name == "A" { "B" } else { "A" };
        until(at, &format!(r#"tombolo_link_routes{{peer="{peer}",dir="in",kind="plain"}}"#), |value| {
            value == count
        })
        .await;
    }
}

/// A client of one side.
pub(crate) async fn join(server: &Server, version: Version, id: &str) -> Client {
    let stream = TcpStream::connect(server.address("tcp:default").unwrap()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut client = Client::over(stream);
    assert_eq!(client.connect(&hello(version, id)).await, Got::ConnAck(false, 0));
    client
}

/// One sample of the metrics, or the sum of all that begin so; 0 if there is none.
pub(crate) fn metric(server: &Server, sample: &str) -> i64 {
    sum(&server.broker().render_metrics(clock::now()), sample)
}

/// The same from their text.
pub(crate) fn sum(text: &str, sample: &str) -> i64 {
    let values =
        text.lines().filter(|line| line.starts_with(sample)).filter_map(|line| line.rsplit(' ').next());
    values.map(|value| value.parse::<f64>().unwrap() as i64).sum()
}

/// Waits until a sample is as it should be.
pub(crate) async fn until(server: &Server, sample: &str, good: impl Fn(i64) -> bool) {
    let reached = time::timeout(LIMIT, async {
        while !good(metric(server, sample)) {
            time::sleep(Duration::from_millis(5)).await;
        }
    });
    if reached.await.is_err() {
        let name = sample.split('{').next().unwrap_or_default();
        let text = server.broker().render_metrics(clock::now());
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
        panic!("{sample} is not as it should be: {lines:#?}");
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, good: impl Fn() -> bool) {
    let reached = time::timeout(LIMIT, async {
        while !good() {
            time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(reached.await.is_ok(), "not so in time: {what}");
}
