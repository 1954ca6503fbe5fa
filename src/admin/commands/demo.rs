//! `tombolo demo`: two clusters on this machine that come to trust each other by a token, and are linked over mutual TLS.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime;
use tokio::signal::unix;
use tokio::signal::unix::SignalKind;
use tokio::time;

use self::bond::Side;
use self::place::Place;
use super::Exit;
use super::Failure;
use crate::admin::logging;
use crate::admin::logging::Logging;
use crate::admin::rest::Changes;
use crate::admin::steward::Steward;
use crate::broker::Broker;
use crate::broker::link_keys::LinkKeys;
use crate::config::settings::Log;
use crate::config::settings::LogFormat;
use crate::metrics::LinkMetrics;
use crate::metrics::labels::Direction;
use crate::metrics::labels::LinkState;
use crate::metrics::labels::RouteKind;
use crate::mqtt::packet::QoS;

mod bond;
mod place;

/// How often the status is looked at; a line is printed only when it changed.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// How long the link may take before we print what to try anyway.
const LINK_WAIT: Duration = Duration::from_secs(10);

/// Runs two linked clusters on loopback until Ctrl-C, and leaves nothing behind.
pub fn demo() -> Result<(), Failure> {
    let log = Log {
        level: "warn".to_owned(),
        format: LogFormat::Text,
        security_file: false,
        security_file_max_bytes: 0,
    };
    let logging = logging::start(&log).map_err(failed)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(run(&logging))
}

fn failed(error: impl ToString) -> Failure {
    Failure::new(Exit::Other, error.to_string())
}

/// One of the two clusters.
struct Cluster {
    name: &'static str,
    peer: &'static str,
    broker: Arc<Broker>,
    changes: Changes,
    keys: Arc<LinkKeys>,
    mqtt: SocketAddr,
    http: SocketAddr,
}

async fn run(logging: &Logging) -> Result<(), Failure> {
    // Before anything exists that an interrupt would leave behind.
    let mut interrupt = unix::signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = unix::signal(SignalKind::terminate()).map_err(failed)?;
    let place = Place::make().map_err(failed)?;
    let mut a = start(&place, "A").await?;
    let mut b = start(&place, "B").await?;
    let clusters = [Cluster::of(&a, "A", "B")?, Cluster::of(&b, "B", "A")?];
    let ended = tokio::select! {
        error = show(&clusters, &place) => Err(error),
        () = a.run() => Ok(()),
        () = b.run() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    say("\nstopping …");
    // That each loses the other now is no news.
    logging.set_level("off").map_err(failed)?;
    tokio::join!(a.stop(), b.stop());
    ended
}

async fn start(place: &Place, name: &'static str) -> Result<Steward, Failure> {
    let (sources, settings) = place.sources(name).map_err(failed)?;
    Steward::start(sources, settings).await.map_err(failed)
}

/// Ends only if the clusters cannot be tied; else it is ended from outside.
async fn show(clusters: &[Cluster; 2], place: &Place) -> Failure {
    let [a, b] = clusters;
    match bond::tie(&a.side(), &b.side()).await {
        Ok(fingerprint) => say(&format!("A issued a token, B used it: A is {fingerprint} from now on")),
        Err(problem) => return failed(format!("the clusters cannot be tied: {}", problem.message)),
    }
    let linked = async {
        while !clusters.iter().all(|cluster| cluster.link().state.is(LinkState::Active)) {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = time::timeout(LINK_WAIT, linked).await.is_ok();
    say(&introduction(clusters, place, in_time));
    let mut known = [const { String::new() }; 2];
    loop {
        for (cluster, known) in clusters.iter().zip(&mut known) {
            let status = cluster.status();
            if status != *known {
                say(&status);
                *known = status;
            }
        }
        time::sleep(STATUS_INTERVAL).await;
    }
}

impl Cluster {
    fn of(steward: &Steward, name: &'static str, peer: &'static str) -> Result<Self, Failure> {
        let node = &steward.node;
        let mqtt = node.server().address("tcp:default").ok_or_else(|| failed("the listener did not open"))?;
        Ok(Self {
            name,
            peer,
            broker: Arc::clone(node.server().broker()),
            changes: steward.changes().clone(),
            keys: Arc::clone(node.server().link_keys()),
            mqtt,
            http: node.http_address(),
        })
    }

    fn side(&self) -> Side<'_> {
        Side { name: self.name, changes: &self.changes, keys: &self.keys }
    }

    fn link(&self) -> Arc<LinkMetrics> {
        self.broker.metrics.link(self.peer)
    }

    fn status(&self) -> String {
        let link = self.link();
        let state = LinkState::ALL
            .iter()
            .find(|state| link.state.is(**state))
            .map_or("unknown", |state| state.name());
        let routes = link.routes[(Direction::In, RouteKind::Plain)].value();
        let crossed = |direction| -> u64 {
            [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]
                .iter()
                .map(|qos| link.messages[(direction, *qos)].value())
                .sum()
        };
        let (sent, received) = (crossed(Direction::Out), crossed(Direction::In));
        let (name, peer) = (self.name, self.peer);
        format!(
            "{name}: link to {peer} {state} · {peer} wants {routes} routes · messages sent {sent}, received {received}"
        )
    }
}

fn introduction(clusters: &[Cluster; 2], place: &Place, linked: bool) -> String {
    let [a, b] = clusters;
    let (port_a, port_b) = (a.mqtt.port(), b.mqtt.port());
    let (http_a, http_b) = (a.http, b.http);
    let state = if linked { "linked over mutual TLS" } else { "not linked yet" };
    format!(
        "\ntombolo demo: two clusters, {state}\n\
         \n  cluster A   MQTT 127.0.0.1:{port_a}   http://{http_a}/metrics\
         \n  cluster B   MQTT 127.0.0.1:{port_b}   http://{http_b}/metrics\
         \n\nSubscribe on B, publish on A, in two more terminals:\
         \n\n  mosquitto_sub -p {port_b} -t 'demo/#' -v\
         \n  mosquitto_pub -p {port_a} -t demo/hello -m 'hello from A' -q 1\
         \n\nA message that nobody on the other side asked for does not cross; watch \"sent\":\
         \n\n  mosquitto_pub -p {port_a} -t other/topic -m 'stays on A'\
         \n\nCtrl-C ends both clusters and removes {}.\n",
        place.path().display()
    )
}

/// A line for the user. Nobody may be reading; that is no reason to end.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}
