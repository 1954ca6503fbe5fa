//! Two `tombolo serve` with links to each other through relays, what they cost, and what they say of themselves.

use std::collections::BTreeSet;
use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::relay::Relay;

/// How often something is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a start may take.
const STARTED: Duration = Duration::from_secs(20);
/// Ticks of a second in `/proc`, on every Linux.
const TICKS: f64 = 100.0;
/// The thread of the relays.
pub(crate) const NETWORK: &str = "network";

/// Waits until something holds; how long that took.
pub(crate) fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        thread::sleep(LOOK);
    }
    began.elapsed()
}

/// A broker that ends with this handle.
pub(crate) struct Process {
    child: Child,
    folder: PathBuf,
    name: &'static str,
    mqtt: SocketAddr,
    http: SocketAddr,
}

impl Process {
    fn start(folder: &Path, name: &'static str, peer: &str, server: SocketAddr) -> Self {
        let folder = folder.to_owned();
        let dir = folder.display();
        let text = format!(
            "[cluster]\nname = \"{name}\"\nnode = \"{name}@host\"\n[data]\ndir = \"{dir}/{name}\"\ndurability = \"memory\"\n\
             [mqtt]\nmax_inflight = 1000\nmax_mqueue_len = 10000000\n[authentication]\nallow_anonymous = true\n\
             [authorization]\nfile = \"{dir}/acl.conf\"\n[http]\nbind = \"127.0.0.1:0\"\n\
             [log]\nformat = \"json\"\nlevel = \"info\"\n\
             [[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"any\"\n\
             allow_insecure = true\n\
             [[cluster.links]]\nname = \"{peer}\"\nserver = \"{server}\"\nclientid = \"clink-{name}-\"\n\
             topics = [\"x/#\"]\npool_size = 4\npeer.allow_unauthenticated = true\nssl.enable = false\n\
             spool.max_bytes = \"8GB\"\n"
        );
        let config = folder.join(format!("{name}.toml"));
        fs::write(&config, text).unwrap();
        let said = folder.join(format!("{name}.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_tombolo"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let address = |message: &str| -> Option<SocketAddr> {
            let said = fs::read_to_string(&said).unwrap();
            let mut lines =
                said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.find(|line| line["message"] == message)?["address"].as_str()?.parse().ok()
        };
        until("it starts", STARTED, || address("listening").is_some() && address("HTTP listening").is_some());
        let (mqtt, http) = (address("listening").unwrap(), address("HTTP listening").unwrap());
        Self { child, folder, name, mqtt, http }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.mqtt
    }

    /// The sum of all samples that begin so.
    pub(crate) fn metric(&self, sample: &str) -> i64 {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(sample));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as i64).sum()
    }

    /// The filters that the peer wants, as the REST API lists them.
    pub(crate) fn wanted(&self, peer: &str) -> BTreeSet<String> {
        let mut filters = BTreeSet::new();
        for page in 1.. {
            let path =
                format!("/api/v5/cluster/links/link/{peer}/routes?direction=in&limit=10000&page={page}");
            let mut stream = UnixStream::connect(self.folder.join(self.name).join("admin.sock")).unwrap();
            write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            let body: serde_json::Value =
                serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
            let rows = body["data"].as_array().unwrap().iter();
            filters.extend(rows.map(|row| row["filter"].as_str().unwrap().to_owned()));
            if body["meta"]["hasnext"] == false {
                break;
            }
        }
        filters
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 1024
    }

    /// Seconds of processor time so far.
    pub(crate) fn cpu_s(&self) -> f64 {
        ticks(&format!("/proc/{}/stat", self.child.id())) / TICKS
    }

    /// No task panicked, and the process lives.
    pub(crate) fn assert_unharmed(&mut self) {
        let said = fs::read_to_string(self.folder.join(format!("{}.log", self.name))).unwrap();
        assert!(self.child.try_wait().unwrap().is_none(), "it ended: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ticks(stat: &str) -> f64 {
    // Behind the name in parentheses: state is the third field, user and system time the 14th and 15th.
    let Ok(text) = fs::read_to_string(stat) else { return 0.0 };
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}

/// Seconds of processor time of our own threads of this name.
pub(crate) fn cpu_of_threads_s(name: &str) -> f64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path());
    let ours =
        threads.filter(|path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim() == name));
    ours.map(|path| ticks(&path.join("stat").display().to_string())).sum::<f64>() / TICKS
}

/// Busy and all seconds of all processors of this machine.
pub(crate) fn cpu_of_machine_s() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let fields: Vec<f64> = text
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .skip(1)
        .take(8)
        .map(|it| it.parse().unwrap())
        .collect();
    let all: f64 = fields.iter().sum();
    ((all - fields[3] - fields[4]) / TICKS, all / TICKS)
}

/// See the module.
pub(crate) struct Pair {
    pub(crate) a: Process,
    pub(crate) b: Process,
    /// What A dials to reach B, and the other way.
    relays: [Relay; 2],
    _network: Runtime,
    _folder: TempDir,
}

impl Pair {
    /// Both brokers, with a network between them that is not there yet.
    pub(crate) fn start(delay: Duration) -> Self {
        let network =
            Builder::new_multi_thread().worker_threads(1).thread_name(NETWORK).enable_all().build().unwrap();
        let open = || network.block_on(async { Relay::open(delay).await });
        let (to_b, to_a) = (open(), open());
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("acl.conf"), "{allow, all}.\n").unwrap();
        let a = Process::start(folder.path(), "A", "B", to_b.address());
        let b = Process::start(folder.path(), "B", "A", to_a.address());
        to_a.lead_to(a.address());
        to_b.lead_to(b.address());
        Self { a, b, relays: [to_b, to_a], _network: network, _folder: folder }
    }

    pub(crate) fn heal(&self) {
        self.relays.iter().for_each(Relay::heal);
    }

    /// Every connection is lost once.
    pub(crate) fn reset(&self) {
        self.relays.iter().for_each(Relay::reset);
    }

    pub(crate) fn cut(&self) {
        self.relays.iter().for_each(Relay::drop_all);
    }

    /// Waits until both links are up, and each side knows so many routes of the other.
    pub(crate) fn linked(&self, of_b: i64, of_a: i64) {
        let routes = "tombolo_link_routes{";
        let known = |at: &Process| -> i64 {
            ["A", "B"].iter().map(|peer| at.metric(&format!("{routes}peer=\"{peer}\",dir=\"in\""))).sum()
        };
        until("both are linked", Duration::from_secs(60), || {
            self.a.metric("tombolo_link_up{") + self.b.metric("tombolo_link_up{") == 2
                && known(&self.a) == of_b
                && known(&self.b) == of_a
        });
    }

    /// Nothing was dropped on its way out, and everything is accounted for.
    pub(crate) fn assert_balanced(&mut self) {
        for process in [&mut self.a, &mut self.b] {
            process.assert_unharmed();
            assert_eq!(process.metric("tombolo_link_ledger_unaccounted_messages"), 0);
            for peer in ["A", "B"] {
                let dropped = format!("tombolo_link_messages_dropped_total{{peer=\"{peer}\",dir=\"out\"");
                assert_eq!(process.metric(&dropped), 0);
            }
        }
    }
}
