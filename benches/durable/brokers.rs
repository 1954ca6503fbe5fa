//! The brokers that are compared.

use std::path::Path;
use std::process::Command;

use crate::lab::Process;
use crate::lab::ports;
use crate::lab::write;

/// One broker with its settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// What it promises, in the words of its configuration.
    mode: &'static str,
    is_ours: bool,
}

const KINDS: [Kind; 6] = [
    Kind { name: "tombolo fsync", mode: "fsync", is_ours: true },
    Kind { name: "tombolo write", mode: "write", is_ours: true },
    Kind { name: "tombolo memory", mode: "memory", is_ours: true },
    Kind { name: "mosquitto 1800 s", mode: "", is_ours: false },
    Kind { name: "mosquitto 1 s", mode: "autosave_interval 1\n", is_ours: false },
    Kind {
        name: "mosquitto each change",
        mode: "autosave_interval 1\nautosave_on_changes true\n",
        is_ours: false,
    },
];

/// All that can run here.
pub(crate) fn installed() -> impl Iterator<Item = Kind> {
    let mosquitto = Command::new("mosquitto").arg("-h").output().is_ok();
    KINDS.into_iter().filter(move |kind| kind.is_ours || mosquitto)
}

/// A broker with a folder and a port that stay when it is started again.
pub(crate) struct Broker {
    pub(crate) process: Process,
    pub(crate) port: u16,
    kind: Kind,
    config: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Broker {
    pub(crate) fn start(kind: Kind, folder: &Path) -> Self {
        let folder = tempfile::tempdir_in(folder).unwrap();
        let [port, http] = ports();
        let text = if kind.is_ours {
            ours(kind.mode, folder.path(), port, http)
        } else {
            theirs(kind.mode, folder.path(), port)
        };
        write(folder.path(), "acl.conf", "{allow, all}.\n");
        let config = write(folder.path(), "config", &text);
        Self { process: run(kind, &config, port), port, kind, config, folder }
    }

    /// Ends it as badly as it is made for, and starts it again: ours is killed, mosquitto gets to write its file.
    pub(crate) fn end(self) -> Ended {
        if self.kind.is_ours {
            drop(self.process);
        } else {
            self.process.stop();
        }
        Ended { port: self.port, kind: self.kind, config: self.config, folder: self.folder }
    }
}

/// A broker that does not run.
pub(crate) struct Ended {
    port: u16,
    kind: Kind,
    config: String,
    folder: tempfile::TempDir,
}

impl Ended {
    pub(crate) fn start(self) -> Broker {
        let Self { port, kind, config, folder } = self;
        Broker { process: run(kind, &config, port), port, kind, config, folder }
    }
}

fn run(kind: Kind, config: &str, port: u16) -> Process {
    if kind.is_ours {
        Process::start(env!("CARGO_BIN_EXE_tombolo"), &["serve", "--config", config], port)
    } else {
        Process::start("mosquitto", &["-c", config], port)
    }
}

fn ours(mode: &str, folder: &Path, port: u16, http: u16) -> String {
    let dir = folder.display();
    format!(
        "[cluster]\nname = \"A\"\n[data]\ndir = \"{dir}/data\"\ndurability = \"{mode}\"\n\
         [[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:{port}\"\n\
         [mqtt]\nmax_inflight = 1000\nmax_mqueue_len = 10000000\n[authentication]\nallow_anonymous = true\n\
         [authorization]\nfile = \"{dir}/acl.conf\"\n[http]\nbind = \"127.0.0.1:{http}\"\n[log]\nlevel = \"off\"\n"
    )
}

fn theirs(mode: &str, folder: &Path, port: u16) -> String {
    let dir = folder.display();
    format!(
        "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {dir}/\n{mode}\
         log_dest none\nset_tcp_nodelay true\nmax_inflight_messages 1000\nmax_queued_messages 0\n"
    )
}
