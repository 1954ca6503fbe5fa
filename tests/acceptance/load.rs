//! Publishers and subscribers that cost little: blocking sockets, and packets that are made by hand.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::harness::LIMIT;

/// Messages of one burst.
const BURST: u64 = 64;
/// Messages of one publisher that its broker has not acknowledged.
const UNACKED_MAX: u64 = 2_000;
/// Between two looks at what is due.
const PACE: Duration = Duration::from_millis(5);

/// The threads' names, for their costs.
pub(crate) const PUBLISHER: &str = "publisher";
pub(crate) const SUBSCRIBER: &str = "subscriber";

/// A connection of MQTT 3.1.1.
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    used: usize,
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let low = (left % 128) as u8;
        left /= 128;
        bytes.push(if left > 0 { low | 128 } else { low });
        if left == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, id: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut connection = Self { stream, input: Vec::new(), used: 0 };
        connection.write(&packet(0x10, &[&text("MQTT")[..], &[4, 2, 0, 0], &text(id)].concat()));
        let (first, body) = connection.next();
        assert_eq!((first, &body[..]), (0x20, &[0, 0][..]));
        connection
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// SUBSCRIBE or UNSUBSCRIBE of many filters; [`Self::next`] gives the answer.
    pub(crate) fn subscribe<'a>(&mut self, add: bool, id: u16, filters: impl Iterator<Item = &'a str>) {
        let mut body = id.to_be_bytes().to_vec();
        for filter in filters {
            body.extend(text(filter));
            body.extend(add.then_some(1));
        }
        self.write(&packet(if add { 0x82 } else { 0xa2 }, &body));
    }

    /// One whole packet of what has come, if there is one.
    fn whole(&mut self) -> Option<(u8, std::ops::Range<usize>)> {
        let rest = &self.input[self.used..];
        let (mut length, mut at) = (0, 1);
        loop {
            let byte = *rest.get(at)?;
            length |= usize::from(byte & 127) << (7 * (at - 1));
            at += 1;
            if byte < 128 {
                break;
            }
        }
        let first = *rest.first()?;
        if rest.len() < at + length {
            return None;
        }
        let body = self.used + at..self.used + at + length;
        self.used = body.end;
        Some((first, body))
    }

    /// Reads once; `false` if there was nothing in time.
    fn fill(&mut self) -> bool {
        self.input.drain(..self.used);
        self.used = 0;
        let kept = self.input.len();
        self.input.resize(kept + 256 * 1024, 0);
        let read = self.stream.read(&mut self.input[kept..]);
        self.input.truncate(kept + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(count) => {
                assert!(count > 0, "the broker closed the connection");
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next packet: its first byte, and what is behind its length.
    pub(crate) fn next(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some((first, body)) = self.whole() {
                return (first, self.input[body].to_vec());
            }
            assert!(self.fill(), "nothing came in {LIMIT:?}");
        }
    }
}

/// What all publishers and subscribers of one way know.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    /// Publishers end.
    pub(crate) stop: AtomicBool,
    /// Subscribers end.
    pub(crate) done: AtomicBool,
}

/// How a publisher goes about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) payload_bytes: usize,
    /// Messages a second; 0: as fast as they arrive.
    pub(crate) rate: u64,
    /// How many of the flow may be under way, if it is as fast as they arrive.
    pub(crate) backlog: u64,
}

/// Publishes numbers at QoS 1 until it is told to stop and all are acknowledged; how many.
pub(crate) fn publish(address: SocketAddr, topic: String, pace: Pace, flow: Arc<Flow>) -> JoinHandle<u64> {
    let run = move || {
        let mut connection = Connection::open(address, &format!("publisher of {topic}"));
        let (began, mut sent, mut acked) = (Instant::now(), 0_u64, 0_u64);
        let mut bytes = Vec::new();
        while !flow.stop.load(Ordering::Relaxed) || acked < sent {
            let due = match pace.rate {
                0 => {
                    let under_way = flow.sent.load(Ordering::Relaxed) - flow.received.load(Ordering::Relaxed);
                    if under_way < pace.backlog { sent + BURST } else { sent }
                }
                rate => (began.elapsed().as_secs_f64() * rate as f64) as u64,
            };
            let due = if flow.stop.load(Ordering::Relaxed) { sent } else { due };
            let count = due.saturating_sub(sent).min(UNACKED_MAX - (sent - acked)).min(16 * BURST);
            bytes.clear();
            for _ in 0..count {
                let id = (sent % 65_535 + 1) as u16;
                let mut body = [&text(&topic)[..], &id.to_be_bytes(), &sent.to_be_bytes()].concat();
                body.resize(topic.len() + 4 + pace.payload_bytes, b'x');
                bytes.extend(packet(0x32, &body));
                sent += 1;
            }
            connection.write(&bytes);
            flow.sent.fetch_add(count, Ordering::Relaxed);
            // Only what nothing else can be done without is waited for.
            let idle = count == 0 && sent - acked < UNACKED_MAX;
            if idle {
                thread::sleep(PACE);
            }
            connection.stream.set_nonblocking(sent - acked < UNACKED_MAX).unwrap();
            if acked < sent {
                connection.fill();
                while let Some((first, _)) = connection.whole() {
                    assert_eq!(first, 0x40);
                    acked += 1;
                }
            }
            connection.stream.set_nonblocking(false).unwrap();
        }
        sent
    };
    thread::Builder::new().name(PUBLISHER.to_owned()).spawn(run).unwrap()
}

/// What came of each topic.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// The number that should come next, by topic.
    pub(crate) next: BTreeMap<String, u64>,
    pub(crate) missing: u64,
    /// Twice, or behind a later one.
    pub(crate) again: u64,
}

/// Subscribes and notes what comes, until all is done and nothing comes any more.
pub(crate) fn subscribe(address: SocketAddr, filter: &str, flow: Arc<Flow>) -> JoinHandle<Arrived> {
    let mut connection = Connection::open(address, "subscriber");
    connection.subscribe(true, 1, [filter].into_iter());
    assert_eq!(connection.next(), (0x90, vec![0, 1, 1]));
    connection.stream.set_read_timeout(Some(PACE)).unwrap();
    let run = move || {
        let mut arrived = Arrived::default();
        let mut acks = Vec::new();
        let mut count = 0;
        loop {
            while let Some((first, body)) = connection.whole() {
                let body = &connection.input[body];
                assert_eq!(first & 0xf6, 0x32, "a message of QoS 1");
                let (length, rest) = body.split_at(2);
                let length = usize::from(u16::from_be_bytes(length.try_into().unwrap()));
                let topic = std::str::from_utf8(&rest[..length]).unwrap();
                let number = u64::from_be_bytes(rest[length + 2..length + 10].try_into().unwrap());
                acks.extend_from_slice(&[0x40, 2, rest[length], rest[length + 1]]);
                count += 1;
                if !arrived.next.contains_key(topic) {
                    arrived.next.insert(topic.to_owned(), 0);
                }
                let next = arrived.next.get_mut(topic).unwrap();
                if number < *next {
                    arrived.again += 1;
                } else {
                    arrived.missing += number - *next;
                    *next = number + 1;
                }
            }
            connection.write(&acks);
            acks.clear();
            flow.received.fetch_add(std::mem::take(&mut count), Ordering::Relaxed);
            if !connection.fill() && flow.done.load(Ordering::Relaxed) {
                return arrived;
            }
        }
    };
    thread::Builder::new().name(SUBSCRIBER.to_owned()).spawn(run).unwrap()
}
