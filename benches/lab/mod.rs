//! What benches over sockets have in common: brokers as processes, what the kernel says of them, and the packets of
//! MQTT 3.1.1 that a generator needs. Every packet is short enough for a length of one byte.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// The longest packet whose length takes one byte, without its first two.
const SHORT: usize = 127;

/// A broker that ends with its handle.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a program and waits until it listens on a port. What it writes is not seen.
    pub(crate) fn start(program: &str, arguments: &[&str], port: u16) -> Self {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut process = Self(child);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(process.0.try_wait().unwrap().is_none(), "{program} ended");
            thread::sleep(Duration::from_millis(2));
        }
        process
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn stop(mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.0.id())).unwrap()
    }

    /// Processor time of all threads so far. The kernel counts it in hundredths of a second.
    pub(crate) fn cpu_s(&self) -> f64 {
        let stat = self.read("stat");
        // Behind the name, which is in brackets; user and system time are the 12th and 13th from there.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
        fields.map(|field| field.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        number(&self.read("status"), "VmRSS:")
    }

    /// Bytes that it had written to a disk so far, in whole pages.
    pub(crate) fn written_bytes(&self) -> u64 {
        number(&self.read("io"), "write_bytes:")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Ports that were free a moment ago.
pub(crate) fn ports<const N: usize>() -> [u16; N] {
    let held: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|index| held[index].local_addr().unwrap().port())
}

/// Writes a file; its path.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A number from the command line: `name=1000`.
pub(crate) fn asked(name: &str) -> Option<usize> {
    std::env::args().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// A connection with Clean Session; Keep Alive in seconds.
pub(crate) fn connect<S: Read + Write>(mut stream: S, id: &str, keep_alive: u8) -> S {
    login(&mut stream, id, true, keep_alive);
    stream
}

/// CONNECT; whether there was a session.
pub(crate) fn login(stream: &mut (impl Read + Write), id: &str, clean: bool, keep_alive: u8) -> bool {
    let mut packet = vec![0x10, (12 + id.len()) as u8, 0, 4];
    packet.extend_from_slice(b"MQTT\x04");
    packet.extend_from_slice(&[if clean { 2 } else { 0 }, 0, keep_alive]);
    packet.extend_from_slice(&(id.len() as u16).to_be_bytes());
    packet.extend_from_slice(id.as_bytes());
    stream.write_all(&packet).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!((connack[0], connack[1], connack[3]), (0x20, 2, 0), "{id} is accepted");
    connack[2] == 1
}

pub(crate) fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Subscribes; there must be nothing else on its way.
pub(crate) fn subscribe(stream: &mut TcpStream, filter: &str, qos: u8) {
    let mut packet = vec![0x82, (5 + filter.len()) as u8, 0, 1, 0, filter.len() as u8];
    packet.extend_from_slice(filter.as_bytes());
    packet.push(qos);
    stream.write_all(&packet).unwrap();
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).unwrap();
    assert_eq!(suback[4], qos);
}

/// A PUBLISH with so many bytes of payload, behind what is in `packets`.
pub(crate) fn publish(topic: &str, qos: u8, id: u16, payload: usize, packets: &mut Vec<u8>) {
    let id = if qos == 0 { &[][..] } else { &id.to_be_bytes() };
    let length = 2 + topic.len() + id.len() + payload;
    assert!(length <= SHORT);
    packets.extend_from_slice(&[0x30 | qos << 1, length as u8, 0, topic.len() as u8]);
    packets.extend_from_slice(topic.as_bytes());
    packets.extend_from_slice(id);
    packets.resize(packets.len() + payload, b'x');
}

/// Packets as they come, many with each read.
pub(crate) struct Input {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: vec![0; 256 * 1024], start: 0, end: 0 }
    }

    /// Waits for more; whether there is any.
    pub(crate) fn read(&mut self) -> bool {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let count = self.stream.read(&mut self.buffer[self.end..]).unwrap_or(0);
        self.end += count;
        count > 0
    }

    /// The next packet that is there as a whole: its first byte, and what follows its length.
    pub(crate) fn next(&mut self) -> Option<(u8, &[u8])> {
        let [first, length, rest @ ..] = &self.buffer[self.start..self.end] else { return None };
        let packet = rest.get(..usize::from(*length))?;
        self.start += 2 + packet.len();
        Some((*first, packet))
    }
}

/// Counts messages and acknowledges those of QoS 1, a read at a time. Ends with the connection.
pub(crate) fn take(stream: TcpStream, received: &AtomicU64) {
    let mut answers = stream.try_clone().unwrap();
    let mut input = Input::new(stream);
    while input.read() {
        let (mut messages, mut acks) = (0, Vec::new());
        while let Some((first, packet)) = input.next() {
            if first & 0xF0 != 0x30 {
                continue;
            }
            if first & 0b110 != 0 {
                let id_at = 2 + usize::from(packet[1]);
                acks.extend_from_slice(&[0x40, 2, packet[id_at], packet[id_at + 1]]);
            }
            messages += 1;
        }
        if !acks.is_empty() && answers.write_all(&acks).is_err() {
            return;
        }
        received.fetch_add(messages, Ordering::Relaxed);
    }
}
