//! What EMQX 6.0.3 answered to publishes on `$LINK`, and what we answer, over sockets (`fixtures/link/captures`).
//! Each recorded connection becomes one of ours; wherever the answer is another on purpose, [`DIFFERENCES`]
//! names it and says why.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fs;

use serde_json::Value;

use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Publish;
use tombolo::mqtt::packet::Version;
use tombolo::mqtt::property::Property;

use crate::auth::passwords;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::hello;
use crate::harness::message;
use crate::harness::properties;
use crate::link_confinement::link_to;

const UNKNOWN: &str =
    "no link of that name is configured: it is not let in under that name, where EMQX answers it";

const GENERATED: &str =
    "a peer's own topics are allowed by what follows from the link, before the file is asked (trust.md 2.5)";

/// Scenario, connection, EMQX's answer, ours, why.
const DIFFERENCES: &[(&str, u64, Answer, Answer, &str)] = &[
    ("08-protocol-violations", 42, Answer::PubAck(0x10), Answer::PubAck(0x87), UNKNOWN),
    ("08-protocol-violations", 48, Answer::PubAck(0x10), Answer::PubAck(0x87), UNKNOWN),
    ("08-protocol-violations", 52, Answer::PubAck(0x10), Answer::PubAck(0x87), UNKNOWN),
    (
        "08-protocol-violations",
        46,
        Answer::PubAck(0x10),
        Answer::PubAck(0x99),
        "garbage on the message topic: EMQX publishes it as a message of that topic",
    ),
    ("08-protocol-violations", 47, Answer::PubAck(0x10), Answer::PubAck(0x99), "a term that is no message"),
    (
        "08-protocol-violations",
        49,
        Answer::Disconnect(0x83),
        Answer::PubAck(0x87),
        "the topic of another cluster: confinement refuses before anything is decoded",
    ),
    ("11-authentication-and-acl", 7, Answer::PubAck(0x10), Answer::PubAck(0x87), UNKNOWN),
    ("11-authentication-and-acl", 8, Answer::PubAck(0x10), Answer::PubAck(0x87), UNKNOWN),
    ("11-authentication-and-acl", 15, Answer::PubAck(0x87), Answer::PubAck(0x10), GENERATED),
    ("11-authentication-and-acl", 16, Answer::PubAck(0x87), Answer::PubAck(0x10), GENERATED),
    ("11-authentication-and-acl", 19, Answer::PubAck(0x87), Answer::PubAck(0x10), GENERATED),
    ("11-authentication-and-acl", 18, Answer::PubAck(0x87), Answer::PubAck(0x10), GENERATED),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    PubAck(u8),
    Disconnect(u8),
}

fn load(name: &str) -> Vec<Value> {
    let path = format!("{}/tests/fixtures/link/captures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    file["events"].as_array().unwrap().clone()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A broker that receives what was recorded, with a link to `peer` or without.
async fn receiver(cluster: &str, peer: Option<&str>) -> Running {
    let setup = Setup::new().cluster(cluster);
    passwords(&setup, &[(&format!("clink-user:{}", peer.unwrap_or("nobody")), "secret")]);
    setup
        .authentication("allow_anonymous = true\npassword_file = \"{dir}/passwd\"")
        .listeners(
            "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"any\"\n\
             allow_insecure = true",
        )
        .links(&peer.map(link_to).unwrap_or_default())
        .start()
        .await
}

struct Replay {
    scenario: &'static str,
    events: Vec<Value>,
    clients: BTreeMap<u64, Client>,
    compared: usize,
    replies: usize,
    differences: HashSet<u64>,
}

impl Replay {
    fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            events: load(scenario),
            clients: BTreeMap::new(),
            compared: 0,
            replies: 0,
            differences: HashSet::new(),
        }
    }

    /// What EMQX sent on this connection between one publish and the next.
    fn theirs(&self, at: usize, conn: u64) -> (Option<Answer>, Option<Value>) {
        let later = self.events[at + 1..].iter().filter(|event| event["conn"] == conn);
        let (mut answer, mut reply) = (None, None);
        for event in later.take_while(|event| event["dir"] == "s2c") {
            let code = || event["reason"].as_u64().unwrap() as u8;
            match event["type"].as_str().unwrap() {
                "PUBACK" => answer = Some(Answer::PubAck(code())),
                "DISCONNECT" => answer = Some(Answer::Disconnect(code())),
                "PUBLISH" => reply = Some(event.clone()),
                other => panic!("{other}"),
            }
        }
        (answer, reply)
    }

    async fn join(&mut self, broker: &Running, conn: u64, peer: &str, bound: bool) {
        let (id, user) = (format!("clink-{peer}-{conn}"), format!("clink-user:{peer}"));
        let mut asked = hello(Version::V5, &id);
        if bound {
            asked = Connect { username: Some(&user), password: Some(b"secret"), ..asked };
        }
        self.clients.insert(conn, broker.try_stay(&asked).await.0);
    }

    /// Sends one recorded publish and compares the answers.
    async fn publish(&mut self, at: usize) {
        let event = self.events[at].clone();
        let conn = event["conn"].as_u64().unwrap();
        let (mut expected, reply) = self.theirs(at, conn);
        for (_, _, theirs, ours, _) in
            DIFFERENCES.iter().filter(|row| (row.0, row.1) == (self.scenario, conn))
        {
            assert_eq!(expected, Some(*theirs), "what the table says of {conn}");
            expected = Some(*ours);
            self.differences.insert(conn);
        }
        let text = |key: &str| event[key].as_str();
        let correlation = text("correlation_data").map(hex);
        let list: Vec<_> = [
            text("response_topic").map(Property::ResponseTopic),
            correlation.as_deref().map(Property::CorrelationData),
        ]
        .into_iter()
        .flatten()
        .collect();
        let list = properties(&list);
        let client = self.clients.get_mut(&conn).unwrap();
        let qos = if event["qos"] == 0 { Q0 } else { Q1 };
        let payload = hex(text("payload").unwrap());
        let topic = text("topic").unwrap();
        let publish = Publish { qos, properties: list.as_properties(), ..message(topic, &payload) };
        if let Some(filter) =
            text("response_topic").filter(|_| reply.is_some() && expected == Some(Answer::PubAck(0x10)))
        {
            assert_eq!(client.subscribe(filter, Q1).await, 1);
        }
        let packet_id = (qos == Q1).then(|| client.fresh_id());
        client.send(&tombolo::mqtt::packet::Packet::Publish(Publish { packet_id, ..publish })).await;
        let ours = match expected {
            None => None,
            Some(_) => match client.next().await {
                Got::Ack(_, _, reason) => Some(Answer::PubAck(reason)),
                Got::Disconnect(reason) => Some(Answer::Disconnect(reason)),
                other => panic!("{other:?}"),
            },
        };
        assert_eq!(ours, expected, "{} connection {conn}", self.scenario);
        self.compared += 1;
        if let Some(reply) = reply.filter(|_| ours == Some(Answer::PubAck(0x10))) {
            let got = client.receive().await;
            assert_eq!(got.topic, reply["topic"]);
            assert_eq!(got.payload, hex(reply["payload"].as_str().unwrap()), "connection {conn}");
            assert_eq!(got.properties().correlation_data(), correlation.as_deref());
            self.replies += 1;
        }
        if !matches!(ours, Some(Answer::Disconnect(_))) {
            client.quiet().await;
        }
    }

    fn is_publish(event: &Value) -> bool {
        event["dir"] == "c2s" && event["type"] == "PUBLISH"
    }
}

/// Everything in the table was met.
fn all_met(replay: &Replay) {
    let named = DIFFERENCES.iter().filter(|row| row.0 == replay.scenario).map(|row| row.1);
    assert_eq!(named.collect::<HashSet<_>>(), replay.differences);
}

#[tokio::test]
async fn protocol_violations_are_answered_as_emqx_answers_them() {
    let mut replay = Replay::new("08-protocol-violations");
    let knows = receiver("emqxB", Some("emqxA")).await;
    let knows_nobody = receiver("emqxA", None).await;
    for at in 0..replay.events.len() {
        let event = replay.events[at].clone();
        if !Replay::is_publish(&event) {
            continue;
        }
        let conn = event["conn"].as_u64().unwrap();
        match event["link"].as_str() {
            Some("A->B") => replay.join(&knows, conn, "emqxA", true).await,
            Some("B->A") => replay.join(&knows_nobody, conn, "emqxB", false).await,
            other => panic!("{other:?}"),
        }
        replay.publish(at).await;
    }
    assert_eq!((replay.compared, replay.replies), (12, 0));
    all_met(&replay);
}

#[tokio::test]
async fn authentication_and_rules_are_those_of_emqx() {
    let mut replay = Replay::new("11-authentication-and-acl");
    let mut d = receiver("emqxD", Some("emqxC")).await;
    let mut c = receiver("emqxC", None).await;
    // The recording begins with a wrong password: EMQX refused it with the same code.
    let wrong = Connect {
        username: Some("clink-user:emqxC"),
        password: Some(b"wrong"),
        ..hello(Version::V5, "clink-emqxC-0")
    };
    assert_eq!(d.open().await.connect(&wrong).await, Got::ConnAck(false, 0x87));
    let mut c_has_link = false;
    let mut seen = HashSet::new();
    for at in 0..replay.events.len() {
        let event = replay.events[at].clone();
        if let Some(rules) = event["step"].as_str().and_then(rules_of) {
            d.reload(|setup| setup.acl(rules)).await.unwrap();
        }
        if !Replay::is_publish(&event) {
            continue;
        }
        let conn = event["conn"].as_u64().unwrap();
        let to_c = event["link"] == "D->C";
        if to_c && conn == 13 && !c_has_link {
            c_has_link = true;
            c.reload(|setup| {
                passwords(&setup, &[("clink-user:emqxD", "secret")]);
                setup.links(&link_to("emqxD"))
            })
            .await
            .unwrap();
        }
        if seen.insert(conn) {
            match to_c {
                true => replay.join(&c, conn, "emqxD", c_has_link).await,
                false => replay.join(&d, conn, "emqxC", true).await,
            }
        }
        replay.publish(at).await;
    }
    assert!(replay.compared > 25 && replay.replies == 6, "{} and {}", replay.compared, replay.replies);
    all_met(&replay);
}

/// The rules of emqxD at a step of the recording, with our User Name for theirs.
fn rules_of(step: &str) -> Option<&'static str> {
    Some(match step.strip_prefix("emqxD ACL: ")? {
        "deny linkuser publish $LINK/cluster/route/#" => {
            "{deny, {username, \"clink-user:emqxC\"}, publish, [\"$LINK/cluster/route/#\"]}.\n{allow, all}."
        }
        "deny linkuser subscribe $LINK/cluster/resp/#" => {
            "{deny, {username, \"clink-user:emqxC\"}, subscribe, [\"$LINK/cluster/resp/#\"]}.\n{allow, all}."
        }
        only if only.starts_with("only publish") => {
            "{allow, {username, \"clink-user:emqxC\"}, publish, [\"$LINK/cluster/route/emqxC\", \
             \"$LINK/cluster/msg/emqxC\"]}.\n\
             {allow, {username, \"clink-user:emqxC\"}, subscribe, [\"$LINK/cluster/resp/emqxC/#\"]}.\n{deny, all}."
        }
        other => panic!("{other}"),
    })
}
