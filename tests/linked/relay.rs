//! Clusters that are not linked reach each other through a third, if all three are told to.

use std::collections::BTreeMap;

use tombolo::mqtt::packet::Version;

use crate::harness::Q0;
use crate::harness::Q1;
use crate::harness::Q2;
use crate::harness::Running;
use crate::harness::Setup;
use crate::pair::join;
use crate::pair::until;
use crate::proxy::Proxy;

/// One end of a link: whose, to whom, and what is said of passing on.
type End = (&'static str, &'static str, &'static str);

/// A in the west, D in the east, B between them.
const LINE: [End; 4] = [
    ("A", "B", r#"reach = ["D"]"#),
    ("B", "A", "relay = true"),
    ("B", "D", "relay = true"),
    ("D", "B", r#"reach = ["A"]"#),
];

const LISTENERS: &str = "[[listeners]]\nname = \"default\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\n\
                         [[listeners]]\nname = \"links\"\ntype = \"tcp\"\nbind = \"127.0.0.1:0\"\nrole = \"link\"\nallow_insecure = true";

struct Net {
    brokers: BTreeMap<&'static str, Running>,
    /// What is dialled to reach each of them.
    _doors: BTreeMap<&'static str, Proxy>,
}

impl Net {
    async fn start(ends: &[End]) -> Self {
        let mut doors = BTreeMap::new();
        for (_, to, _) in ends {
            if !doors.contains_key(to) {
                doors.insert(*to, Proxy::open().await);
            }
        }
        let mut brokers = BTreeMap::new();
        for name in doors.keys().copied() {
            let mut links = String::new();
            for (_, to, more) in ends.iter().filter(|(from, ..)| *from == name) {
                let server = doors[to].address();
                links += &format!(
                    "[[cluster.links]]\nname = \"{to}\"\nserver = \"{server}\"\ntopics = [\"#\"]\npool_size = 2\n{more}\n\
                     [cluster.links.peer]\nallow_unauthenticated = true\n[cluster.links.ssl]\nenable = false\n"
                );
            }
            let broker = Setup::new().cluster(name).listeners(LISTENERS).links(&links).start().await;
            doors[name].lead_to(broker.address("tcp:links"));
            brokers.insert(name, broker);
        }
        let net = Self { brokers, _doors: doors };
        for (from, to, _) in ends {
            let up = format!(r#"tombolo_link_up{{peer="{to}"}}"#);
            until(&net.brokers[from].server, &up, |value| value == 1).await;
        }
        net
    }

    /// Waits until `peer` wants this many routes of `at`.
    async fn wanted(&self, at: &str, peer: &str, count: i64) {
        let sample = format!(r#"tombolo_link_routes{{peer="{peer}",dir="in",kind="plain"}}"#);
        until(&self.brokers[at].server, &sample, |value| value == count).await;
    }
}

#[tokio::test]
async fn what_one_end_wants_the_other_sends_through_the_middle() {
    let net = Net::start(&LINE).await;
    let mut east = join(&net.brokers["D"].server, Version::V5, "east").await;
    let mut middle = join(&net.brokers["B"].server, Version::V5, "middle").await;
    let mut west = join(&net.brokers["A"].server, Version::V5, "west").await;
    assert_eq!(east.subscribe("t/#", Q2).await, 2);
    net.wanted("A", "B", 1).await;
    for (number, qos) in (0..30).zip([Q0, Q1, Q2].into_iter().cycle()) {
        assert_eq!(west.publish("t/1", number.to_string().as_bytes(), qos).await, 0);
    }
    for number in 0..30 {
        assert_eq!(east.receive().await.text(), number.to_string(), "each once, in order");
    }
    // Whoever is in the middle gets it too, once, and it still goes on.
    middle.subscribe("t/1", Q1).await;
    net.wanted("A", "B", 2).await;
    west.publish("t/1", b"both", Q1).await;
    assert_eq!((east.receive().await.text(), middle.receive().await.text()), ("both", "both"));
    // And what is published in the middle goes to both sides as ever.
    middle.publish("t/1", b"from the middle", Q1).await;
    assert_eq!(east.receive().await.text(), "from the middle");
    assert_eq!(middle.receive().await.text(), "from the middle");
    middle.unsubscribe(&["t/1"]).await;
    east.unsubscribe(&["t/#"]).await;
    net.wanted("A", "B", 0).await;
    assert_eq!(west.publish("t/1", b"nobody", Q1).await, 0x10);
    for client in [&mut east, &mut middle, &mut west] {
        client.quiet().await;
    }
}

#[tokio::test]
async fn nothing_is_passed_on_unless_both_ends_and_the_middle_say_so() {
    let plain: [End; 4] = [("A", "B", ""), ("B", "A", ""), ("B", "D", ""), ("D", "B", "")];
    for silent in 0..4 {
        let mut ends = LINE;
        ends[silent] = plain[silent];
        let net = Net::start(&ends).await;
        let mut east = join(&net.brokers["D"].server, Version::V5, "east").await;
        let mut middle = join(&net.brokers["B"].server, Version::V5, "middle").await;
        let mut west = join(&net.brokers["A"].server, Version::V5, "west").await;
        east.subscribe("t/#", Q1).await;
        middle.subscribe("m", Q1).await;
        net.wanted("B", "D", 1).await;
        net.wanted("A", "B", 1).await;
        assert_eq!(west.publish("t/1", b"no", Q1).await, 0x10, "{silent}");
        assert_eq!(west.publish("m", b"yes", Q1).await, 0);
        assert_eq!(middle.receive().await.text(), "yes");
        east.quiet().await;
    }
}

#[tokio::test]
async fn three_that_are_all_linked_and_pass_on_get_everything_once() {
    let ends: [End; 6] = [
        ("A", "B", "relay = true"),
        ("A", "D", "relay = true"),
        ("B", "A", "relay = true"),
        ("B", "D", "relay = true"),
        ("D", "A", "relay = true"),
        ("D", "B", "relay = true"),
    ];
    let net = Net::start(&ends).await;
    let mut clients = Vec::new();
    for name in ["A", "B", "D"] {
        let mut client = join(&net.brokers[name].server, Version::V5, name).await;
        client.subscribe("t", Q1).await;
        clients.push(client);
    }
    for (at, peers) in [("A", ["B", "D"]), ("B", ["A", "D"]), ("D", ["A", "B"])] {
        for peer in peers {
            net.wanted(at, peer, 1).await;
        }
    }
    for index in 0..clients.len() {
        clients[index].publish("t", index.to_string().as_bytes(), Q1).await;
        for client in &mut clients {
            assert_eq!(client.receive().await.text(), index.to_string());
        }
    }
    for client in &mut clients {
        client.quiet().await;
    }
}

#[tokio::test]
async fn a_way_over_four_clusters_is_told_and_taken() {
    let net = Net::start(&[
        ("A", "B", r#"reach = ["C", "D"]"#),
        ("B", "A", "relay = true\nreach = []"),
        ("B", "C", "relay = true\nreach = [\"D\"]"),
        ("C", "B", "relay = true\nreach = [\"A\"]"),
        ("C", "D", "relay = true"),
        ("D", "C", r#"reach = ["A", "B"]"#),
    ])
    .await;
    let mut east = join(&net.brokers["D"].server, Version::V5, "east").await;
    let mut west = join(&net.brokers["A"].server, Version::V5, "west").await;
    east.subscribe("far", Q1).await;
    net.wanted("C", "D", 1).await;
    net.wanted("B", "C", 1).await;
    net.wanted("A", "B", 1).await;
    for number in 0..20 {
        west.publish("far", number.to_string().as_bytes(), Q1).await;
    }
    for number in 0..20 {
        assert_eq!(east.receive().await.text(), number.to_string());
    }
    east.quiet().await;
    west.quiet().await;
}
