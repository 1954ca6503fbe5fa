//! What systemd hears of the program, over a datagram socket as it makes one.

use std::process::Stdio;

use tokio::net::UnixDatagram;
use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::LIMIT;

/// The next state that is not one of the watchdog's.
async fn next(socket: &UnixDatagram) -> String {
    loop {
        let state = heard(socket).await;
        if state != "WATCHDOG=1" {
            return state;
        }
    }
}

async fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = timeout(LIMIT, socket.recv(&mut buffer)).await.expect("a state in time").unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn ready_watchdog_reloading_and_stopping_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let config = folder.path().join("tombolo.toml");
    let data = folder.path().join("data");
    let text = format!(
        "[cluster]\nname = \"A\"\n[data]\ndir = \"{}\"\n[http]\nbind = \"127.0.0.1:0\"\n\
         [[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n",
        data.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
    command.args(["serve", "--config"]).arg(&config).stderr(Stdio::null()).kill_on_drop(true);
    command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "2400000");
    // Half of that is longer than what the program does each second anyway, which must not begin it anew.
    let mut child = command.spawn().unwrap();
    let pid = child.id().unwrap().to_string();
    let signal = async |name: &str| {
        assert!(Command::new("kill").args([name, &pid]).status().await.unwrap().success());
    };
    assert_eq!(next(&socket).await, "READY=1");
    assert_eq!(heard(&socket).await, "WATCHDOG=1");
    signal("-HUP").await;
    assert_eq!(next(&socket).await, "RELOADING=1");
    assert_eq!(next(&socket).await, "READY=1");
    // A reload that is refused is over too.
    std::fs::write(&config, "nonsense").unwrap();
    signal("-HUP").await;
    assert_eq!(next(&socket).await, "RELOADING=1");
    assert_eq!(next(&socket).await, "READY=1");
    signal("-TERM").await;
    assert_eq!(next(&socket).await, "STOPPING=1");
    assert_eq!(timeout(LIMIT, child.wait()).await.unwrap().unwrap().code(), Some(0));
}
