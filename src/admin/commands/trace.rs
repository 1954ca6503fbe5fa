//! `trace`: follows a running broker until Ctrl-C, or for a time.

use std::fmt::Write as _;
use std::future;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime;
use tokio::signal::unix;
use tokio::signal::unix::SignalKind;
use tokio::task;
use tokio::time;

use super::Exit;
use super::Failure;
use crate::admin::cli::operate::Lines;
use crate::admin::http::query::percent_encode;
use crate::admin::output;
use crate::admin::remote::Remote;

/// Prints events as they happen.
pub fn trace(
    remote: Remote,
    conditions: &[(&str, Option<String>)],
    limit: Option<Duration>,
    format: Lines,
) -> Result<(), Failure> {
    let conditions = conditions.iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let query: Vec<String> =
        conditions.map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
    let path = format!("/api/v5/trace/stream?{}", query.join("&"));
    follow(remote, path, limit, move |line| match format {
        Lines::Json => output::print(&format!("{line}\n")),
        Lines::Text => output::print(&text(line)),
    })
}

/// Prints lines as they come, until Ctrl-C or for a time.
pub(super) fn follow(
    remote: Remote,
    path: String,
    limit: Option<Duration>,
    print: impl Fn(&str) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Other, format!("cannot start the runtime: {error}")))?;
    let ended = runtime.block_on(async {
        // Before there is anything to interrupt.
        let mut interrupt = unix::signal(SignalKind::interrupt())
            .map_err(|error| Failure::new(Exit::Other, format!("signals: {error}")))?;
        let reading = task::spawn_blocking(move || remote.follow(&path, print));
        let limit = async {
            match limit {
                Some(limit) => time::sleep(limit).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            ended = reading => ended.unwrap_or_else(|error| Err(Failure::new(Exit::Other, error.to_string()))),
            _ = interrupt.recv() => Ok(()),
            () = limit => Ok(()),
        }
    });
    // The thread that reads waits for a broker that has nothing to say.
    runtime.shutdown_background();
    ended
}

/// One line for people: when, what, who, about what, and the rest as `name=value`.
fn text(line: &str) -> String {
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    let field = |name: &str| output::shown(&event[name]);
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write!(out, "{:24} {:11}", field("time"), field("event"));
    for name in ["clientid", "topic"] {
        if !event[name].is_null() {
            let _ = write!(out, " {}", field(name));
        }
    }
    for name in DETAILS.iter().filter(|name| !event[**name].is_null()) {
        let _ = match *name {
            "reason_code" => write!(out, " {name}=0x{:02x}", event[*name].as_u64().unwrap_or_default()),
            _ => write!(out, " {name}={}", field(name)),
        };
    }
    out.push('\n');
    out
}

/// The other fields of an event, in the order in which they are shown.
const DETAILS: [&str; 14] = [
    "from_clientid",
    "link",
    "action",
    "permission",
    "rule_line",
    "qos",
    "retain",
    "payload_bytes",
    "messages",
    "reason",
    "reason_code",
    "username",
    "peername",
    "listener",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_and_what_first() {
        let line = "{\"time\":\"T\",\"event\":\"subscribe\",\"clientid\":\"a\\u001b\",\"peername\":\"10.0.0.1:5\",\
                    \"topic\":\"x/#\",\"reason_code\":135}";
        let shown = text(line);
        let words: Vec<&str> = shown.split_whitespace().collect();
        // What a client chose does not move the cursor of a terminal.
        assert_eq!(words, ["T", "subscribe", "a\\u{1b}", "x/#", "reason_code=0x87", "peername=10.0.0.1:5"]);
    }
}
