//! Class L: connections that begin and never finish, by the thousand. Who comes last is let in, the oldest gives way, and what
//! is held of them is bounded. The broker is one process, and who connects is another: this one.

use std::net::Ipv4Addr;
use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::time;

use tombolo::mqtt::packet::Version;
use tombolo::net::descriptors;

use crate::harness::LIMIT;
use crate::harness::Setup;
use crate::harness::hello;
use crate::input::number_of;
use crate::process::Process;

/// Connections, unless `HARM_HALF_OPEN` names another number.
const USUAL: usize = 4_000;
/// Descriptors left to everything else in this process.
const OTHERS: usize = 200;
/// What a listener for clients keeps at most, however many clients it may have.
const KEPT_MAX: usize = 4_096;
/// Waves of them; an honest client comes behind each.
const WAVES: usize = 8;
/// What one that is kept may take, as in class A: most of it is the future of its handshakes. And what a warm-up may bring.
const KIB_EACH: i64 = 64;
const SLACK_KIB: i64 = 4 * 1024;

const OPENED: &str = "tombolo_connections_total{listener=\"tcp\"}";
const GAVE_WAY: &str = "tombolo_connections_rejected_total{reason=\"half_open\"}";

/// From one of many addresses, because each has some 28,000 ports.
async fn connect(to: SocketAddr, number: usize) -> TcpStream {
    let from = Ipv4Addr::new(127, 0, 0, 1 + (number % 16) as u8);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whether the other side has closed it; what is open is silent.
fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 1]) {
        Ok(count) => {
            assert_eq!(count, 0, "nobody is answered before a CONNECT");
            true
        }
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[tokio::test]
async fn half_open_connections_by_the_thousand_keep_nobody_out() {
    let limit = descriptors::raise_limit().map_or(usize::MAX, |limit| limit as usize);
    let count = number_of("HARM_HALF_OPEN", USUAL).min(limit.saturating_sub(OTHERS)) / WAVES * WAVES;
    // A quarter of them is kept, or what a listener keeps at most.
    let kept = (count / 4).min(KEPT_MAX);
    let listener = format!(
        "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nmax_connections = {}\n",
        count / 4
    );
    let setup = Setup::new().listeners(&listener).mqtt("idle_timeout = \"3600s\"");
    let mut broker = Process::start(setup).await;
    let mut honest = vec![broker.join(&hello(Version::V5, "early")).await];
    let before = broker.resident_kib();
    let mut streams = Vec::with_capacity(count);
    for wave in 1..=WAVES {
        while streams.len() < count / WAVES * wave {
            let mut stream = connect(broker.address(), streams.len()).await;
            let begun = [&b""[..], b"\x10", b"\x10\x20\0\x04MQTT"][streams.len() % 3];
            stream.write_all(begun).await.unwrap();
            streams.push(stream);
        }
        broker.until_metric(OPENED, (streams.len() + honest.len()) as u64).await;
        honest.push(broker.join(&hello(Version::V5, &format!("wave-{wave}"))).await);
    }
    let gave_way = count - kept;
    for stream in &mut streams[..gave_way] {
        let end = time::timeout(LIMIT, stream.read(&mut [0; 1])).await.expect("the oldest gave way");
        // Closed, or reset because of what we had sent.
        assert_eq!(end.unwrap_or(0), 0, "nobody is answered before a CONNECT");
    }
    let counted = broker.metric(GAVE_WAY).await as usize;
    assert!((gave_way..=gave_way + WAVES).contains(&counted), "{counted} of {count}");
    assert!(streams[counted..].iter().all(|stream| !is_closed(stream)), "the youngest are kept");
    let grown = broker.resident_kib() - before;
    println!(
        "class L: {count} half-open connections: {kept} kept, {counted} gave way, {grown} KiB more, {} logins behind them",
        honest.len() - 1
    );
    assert!(grown <= KIB_EACH * kept as i64 + SLACK_KIB, "{grown} KiB");
    for client in &mut honest {
        client.quiet().await;
    }
    broker.assert_unharmed();
}
