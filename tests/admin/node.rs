//! A node of its own for each test, and requests to it.

use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tombolo::admin::base64;
use tombolo::admin::keys::Keys;
use tombolo::admin::node::Node;
use tombolo::admin::rest::Change;
use tombolo::admin::sockets::ADMIN_SOCKET;
use tombolo::config::settings::Settings;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;
use tombolo::storage::Storage;

use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Setup;
use crate::harness::hello;

/// A node with one plain listener that allows everything, and a key to its API.
pub(crate) struct Running {
    pub(crate) node: Node,
    pub(crate) setup: Setup,
    pub(crate) key: String,
    pub(crate) changes: mpsc::Receiver<Change>,
}

/// An answer: status and body.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer(pub(crate) u16, pub(crate) String);

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.1).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub(crate) async fn start() -> Running {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Running {
    start_as(Setup::new(), change).await
}

/// On a storage of the caller's.
pub(crate) async fn start_on(storage: impl Storage + 'static) -> Running {
    start_all(Setup::new(), |_| {}, Some(Box::new(storage))).await
}

pub(crate) async fn start_as(setup: Setup, change: impl FnOnce(&mut Settings)) -> Running {
    start_all(setup, change, None).await
}

async fn start_all(
    setup: Setup,
    change: impl FnOnce(&mut Settings),
    storage: Option<Box<dyn Storage>>,
) -> Running {
    let mut settings = setup.settings();
    settings.http.bind = "127.0.0.1:0".parse().unwrap();
    change(&mut settings);
    let data = settings.data.dir.clone();
    let (sender, changes) = mpsc::channel(1);
    let node = Node::start_on(settings, Some(sender), storage).await.unwrap();
    let new = Keys::of(&data).create("test", 1).unwrap();
    Running { node, setup, key: format!("{}:{}", new.key.id, new.secret), changes }
}

impl Running {
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.setup.settings().data.dir
    }

    /// A connected client.
    pub(crate) async fn join(&self, version: Version, id: &str) -> Client {
        let (client, answer) = self.join_as(&hello(version, id)).await;
        assert_eq!(answer, Got::ConnAck(false, 0));
        client
    }

    /// A client and the answer to its CONNECT.
    pub(crate) async fn join_as(&self, connect: &Connect<'_>) -> (Client, Got) {
        let address = self.node.server().address("tcp:default").unwrap();
        let mut client = Client::over(TcpStream::connect(address).await.unwrap());
        let answer = client.connect(connect).await;
        (client, answer)
    }

    /// A request on the port, with the key.
    pub(crate) async fn ask(&self, method: &str, path: &str) -> Answer {
        self.send(method, path, Some(&self.key), None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, Some(&self.key), Some(("application/json", &body.to_string()))).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: Option<(&str, &str)>,
    ) -> Answer {
        let stream = TcpStream::connect(self.node.http_address()).await.unwrap();
        exchange(stream, &head(method, path, key, body)).await
    }

    /// A request on the admin socket.
    pub(crate) async fn ask_socket(&self, method: &str, path: &str) -> Answer {
        let stream = UnixStream::connect(self.data().join(ADMIN_SOCKET)).await.unwrap();
        exchange(stream, &head(method, path, None, None)).await
    }
}

pub(crate) fn head(method: &str, path: &str, key: Option<&str>, body: Option<(&str, &str)>) -> String {
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n");
    if let Some(key) = key {
        head += &format!("Authorization: Basic {}\r\n", base64::encode(key.as_bytes()));
    }
    let (kind, body) = body.unwrap_or_default();
    if !body.is_empty() {
        head += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    }
    head + "\r\n" + body
}

pub(crate) async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a complete answer");
    Answer(head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Waits for something that nobody announces.
pub(crate) async fn eventually(what: &str, happened: impl Fn() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, waiting).await.is_ok(), "{what}");
}
