//! Every answer of the receiver, and every way to be thrown out.

use super::*;
use crate::link::compress::Deflater;
use crate::link::extension::Capabilities;
use crate::link::message::MessageProperties;
use crate::link::message::Outgoing;
use crate::link::payload::Heartbeat;
use crate::link::payload::RouteBatch;
use crate::link::payload::RouteOp;
use crate::link::payload::page;
use crate::link::payload::page::Asked;
use crate::link::remote_routes::RouteLimits;
use crate::mqtt::packet::QoS;

const RESPONSE: &str = "$LINK/cluster/resp/A/n1";
const NOW: Now = Now { mono_ms: 1_000, unix_ms: 1_800_000_000_000 };

struct Receiver {
    session: IngressSession,
    routes: RemoteRoutes,
    topics: LinkTopics,
    enabled: bool,
    known: bool,
    capabilities: Capabilities,
    ordered: Option<PageOrder>,
}

impl Receiver {
    fn new() -> Self {
        Self {
            session: IngressSession::default(),
            routes: RemoteRoutes::new(RouteLimits { actors: 1, routes: 2, ..RouteLimits::default() }),
            topics: LinkTopics::parse(&["t/#"]).unwrap(),
            enabled: true,
            known: true,
            capabilities: Capabilities::NONE,
            ordered: None,
        }
    }

    fn publish(&mut self, response_topic: Option<&str>, payload: &[u8]) -> Result<u8, String> {
        let link = LinkView {
            peer: "A",
            cluster: "B",
            enabled: self.enabled,
            topics: &self.topics,
            capabilities: self.capabilities,
            demanded: Capabilities::NONE,
            reach: &[],
            qos: None,
        };
        let publish = ControlPublish { peer: "A", response_topic, correlation_data: Some(b"0123"), payload };
        let mut inflater = Inflater::default();
        let link = self.known.then_some(&link);
        match control(&mut self.session, link, &mut self.routes, &mut inflater, NOW, publish) {
            ControlDecision::Ack(code) => Ok(code),
            ControlDecision::Disconnect(violation) => Err(violation.to_string()),
            ControlDecision::Page(order) => {
                self.ordered = Some(*order);
                Ok(NO_MATCHING_SUBSCRIBERS)
            }
            ControlDecision::Report(report) => panic!("{report:?}"),
            ControlDecision::Reply { topic, payload, correlation_data, .. } => {
                assert_eq!((topic, correlation_data), (RESPONSE, &b"0123"[..]));
                let mut inflater = Inflater::default();
                let ack = payload::parse_ack(inflater.open(&payload).unwrap()).unwrap();
                Err(format!("{:?} {:?}", ack.result, ack.need_bootstrap))
            }
        }
    }

    fn init(&mut self, actor: &str, incarnation: u64, target_cluster: &str) -> Result<u8, String> {
        let mut payload = Vec::new();
        payload::put_actor_init(
            &mut payload,
            &ActorInit { actor, incarnation, target_cluster, proto_ver: 1, capabilities: self.capabilities },
        );
        self.publish(Some(RESPONSE), &payload)
    }

    fn route(&mut self, actor: &str, topics: &[&str]) -> Result<u8, String> {
        let mut batch = RouteBatch::new(actor, 1);
        for topic in topics {
            batch.push(&RouteOp { delete: false, topic: topic.as_bytes(), id: b"id" });
        }
        self.publish(None, &batch.finish(&mut Deflater::default(), 0))
    }

    fn beat(&mut self, actor: &str) -> Result<u8, String> {
        let mut payload = Vec::new();
        payload::put_heartbeat(&mut payload, &Heartbeat { actor, incarnation: 1, ..Heartbeat::default() });
        self.publish(None, &payload)
    }
}

#[test]
fn an_init_is_answered_by_the_state_of_the_link() {
    let mut receiver = Receiver::new();
    receiver.known = false;
    assert_eq!(receiver.init("n1", 1, "B"), Err("Err(\"unknown_cluster\") None".into()));
    receiver.known = true;
    assert_eq!(receiver.init("n1", 1, "C"), Err("Err(\"bad_remote_cluster_link_name\") None".into()));
    receiver.enabled = false;
    assert_eq!(receiver.init("n1", 1, "C"), Err("Err(\"cluster_link_disabled\") None".into()));
    receiver.enabled = true;
    assert_eq!(receiver.session.actor(), None, "a refusal leaves the connection as it was");
    assert_eq!(receiver.init("n1", 1, "B"), Err("Ok(()) Some(true)".into()));
    assert_eq!(receiver.session.actor(), Some("n1"));
    receiver.session = IngressSession::default();
    assert_eq!(receiver.init("n1", 1, "B"), Err("Ok(()) Some(true)".into()), "it has not told all");
    receiver.beat("n1").unwrap();
    receiver.session = IngressSession::default();
    assert_eq!(receiver.init("n1", 1, "B"), Err("Ok(()) Some(false)".into()));
    receiver.session = IngressSession::default();
    assert_eq!(receiver.init("n2", 1, "B"), Err("Err(\"too_many_actors\") None".into()));
}

#[test]
fn violations_end_the_connection() {
    let mut receiver = Receiver::new();
    assert_eq!(receiver.route("n1", &["t/1"]), Err("route update before actor_init".into()));
    assert_eq!(receiver.beat("n1"), Ok(0x10), "a heartbeat before actor_init is ignored");
    let mut init = Vec::new();
    let actor_init = ActorInit {
        actor: "n1",
        incarnation: 5,
        target_cluster: "B",
        proto_ver: 1,
        capabilities: Capabilities::NONE,
    };
    payload::put_actor_init(&mut init, &actor_init);
    let missing = "actor_init without response topic or correlation data";
    assert_eq!(receiver.publish(None, &init), Err(missing.into()));
    for topic in
        ["other/topic", "$LINK/cluster/resp/B/n1", "$LINK/cluster/resp/A/n/1", "$LINK/cluster/resp/A/#"]
    {
        let foreign = "response topic outside $LINK/cluster/resp/<peer>/<actor>";
        assert_eq!(receiver.publish(Some(topic), &init), Err(foreign.into()), "{topic}");
    }
    assert!(receiver.publish(Some(RESPONSE), &init).is_err_and(|reply| reply.starts_with("Ok")));
    assert_eq!(receiver.init("n1", 5, "B"), Err("second actor_init on one connection".into()));
    assert_eq!(receiver.route("n2", &["t/1"]), Err("operation for another actor".into()));
    assert_eq!(receiver.beat("n2"), Err("operation for another actor".into()));
    assert!(receiver.publish(None, b"garbage").is_err_and(|why| why.starts_with("unreadable")));
    let old = std::mem::take(&mut receiver.session);
    assert_eq!(receiver.init("n1", 4, "B"), Err("outdated_incarnation_actor".into()));
    receiver.session = IngressSession::default();
    assert!(receiver.init("n1", 6, "B").is_err_and(|reply| reply.starts_with("Ok")));
    receiver.session = old;
    assert_eq!(receiver.route("n1", &["t/1"]), Err("actor has expired or was replaced".into()));
    assert_eq!(receiver.beat("n1"), Err("actor has expired or was replaced".into()));
}

#[test]
fn a_peer_over_its_quota_is_told_and_stays() {
    let mut receiver = Receiver::new();
    let _ = receiver.init("n1", 1, "B");
    assert_eq!(receiver.route("n1", &["t/1", "t/2"]), Ok(0x10));
    assert_eq!(receiver.route("n1", &["t/3"]), Ok(0x97));
    // EMQX keeps honouring a peer whose link is off, so that it is in step when it is on again.
    receiver.enabled = false;
    assert_eq!((receiver.route("n1", &["t/1"]), receiver.beat("n1")), (Ok(0x10), Ok(0x10)));
}

/// A link to A as B has it, with a peer that can do what EMQX can.
fn view(topics: &LinkTopics) -> LinkView<'_> {
    LinkView {
        peer: "A",
        cluster: "B",
        enabled: true,
        topics,
        capabilities: Capabilities::NONE,
        demanded: Capabilities::NONE,
        reach: &[],
        qos: None,
    }
}

fn decide(link: Option<&LinkView<'_>>, timestamp_ms: u64, expiry: Option<u32>) -> Result<u64, DropReason> {
    let mut payload = Vec::new();
    let properties = MessageProperties { message_expiry_interval: expiry, ..MessageProperties::default() };
    message::put(
        &mut payload,
        &Outgoing {
            id: [1; 16],
            qos: QoS::AtLeastOnce,
            from: None,
            username: None,
            peer: None,
            retain: false,
            topic: "t/1",
            payload: b"x",
            timestamp_ms,
            properties,
        },
    );
    match message(link, &mut Inflater::default(), NOW, &payload) {
        MessageDecision::Deliver(forwarded) => Ok(forwarded.timestamp_ms),
        MessageDecision::Drop { reason, code, error, .. } => {
            assert_eq!((code, error), (0x10, None));
            Err(reason)
        }
    }
}

#[test]
fn a_message_passes_only_an_enabled_link_in_time() {
    let topics = LinkTopics::parse(&["t/#"]).unwrap();
    let link = view(&topics);
    let off = LinkView { enabled: false, ..link };
    assert_eq!(decide(None, 5, None), Err(DropReason::Filter));
    assert_eq!(decide(Some(&off), 5, None), Err(DropReason::Filter));
    assert_eq!(decide(Some(&link), 5, None), Ok(5));
    assert_eq!(
        decide(Some(&link), NOW.unix_ms + 9_000, Some(1)),
        Ok(NOW.unix_ms + 9_000),
        "a clock that runs ahead is no reason to drop it, nor to read another time than it says"
    );
    assert_eq!(decide(Some(&link), NOW.unix_ms - 60_000, Some(60)), Err(DropReason::Expired));
    assert_eq!(decide(Some(&link), NOW.unix_ms - 59_999, Some(60)), Ok(NOW.unix_ms - 59_999));
}

#[test]
fn a_message_above_the_qos_that_is_granted_is_dropped_and_the_next_is_not() {
    let topics = LinkTopics::parse(&["t/#"]).unwrap();
    let bounds = QosBounds::of([("t/#", QoS::AtMostOnce), ("t/1", QoS::AtLeastOnce)]);
    let free = view(&topics);
    let bounded = LinkView { qos: bounds.as_ref(), ..free };
    let taken = |link: &LinkView<'_>, topic: &str, qos: QoS, known: &str| {
        let message = Outgoing {
            id: [1; 16],
            qos,
            from: None,
            username: None,
            peer: None,
            retain: false,
            topic,
            payload: b"p",
            timestamp_ms: NOW.unix_ms,
            properties: MessageProperties::default(),
        };
        let mut payload = Vec::new();
        message::put(&mut payload, &message);
        match plain_message(Some(link), NOW, &payload, known) {
            MessageDecision::Deliver(_) => Ok(()),
            MessageDecision::Drop { reason, code, .. } => Err((reason, code)),
        }
    };
    let denied = Err((DropReason::Acl, NO_MATCHING_SUBSCRIBERS));
    for qos in QoS::ALL {
        assert_eq!(taken(&free, "t/1", qos, ""), Ok(()));
        // Also where the message before was to the same topic.
        for known in ["", "t/1"] {
            let expected = if qos == QoS::ExactlyOnce { denied } else { Ok(()) };
            assert_eq!(taken(&bounded, "t/1", qos, known), expected, "{qos:?} {known}");
        }
        let expected = if qos == QoS::AtMostOnce { Ok(()) } else { denied };
        assert_eq!(taken(&bounded, "t/2", qos, ""), expected, "{qos:?}");
    }
}

#[test]
fn drop_reasons_have_distinct_labels_and_indices() {
    let labels: std::collections::BTreeSet<&str> =
        DropReason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(labels.len(), DropReason::ALL.len());
    assert!(DropReason::ALL.iter().enumerate().all(|(index, reason)| reason.index() == index));
}

#[test]
fn a_page_is_made_only_for_a_bound_actor_of_a_link_that_says_so() {
    let mut payload = Vec::new();
    let filters: [Box<str>; 1] = ["t/#".into()];
    let asked = Asked { number: 3, filters: &filters, after: Some("t/1"), bytes_max: 500 };
    page::put_page_request(&mut payload, "n1", 1, &asked);
    for (capabilities, expected) in [
        (Capabilities::OURS.with(Capabilities::RETAINED), Ok(0x10)),
        (Capabilities::OURS, Err("unreadable control operation: unknown operation".to_owned())),
    ] {
        let mut receiver = Receiver { capabilities, ..Receiver::new() };
        assert!(receiver.publish(Some(RESPONSE), &payload).is_err(), "before actor_init");
        let _ = receiver.init("n1", 1, "B");
        assert_eq!(receiver.publish(Some(RESPONSE), &payload), expected);
        assert_eq!(receiver.ordered.is_some(), expected.is_ok());
    }
    let mut receiver =
        Receiver { capabilities: Capabilities::OURS.with(Capabilities::RETAINED), ..Receiver::new() };
    let _ = receiver.init("n1", 1, "B");
    for topic in [None, Some("$LINK/cluster/resp/C/n1"), Some("t/1")] {
        assert!(receiver.publish(topic, &payload).is_err() && receiver.ordered.is_none(), "{topic:?}");
    }
    receiver.publish(Some(RESPONSE), &payload).unwrap();
    let expected = PageOrder {
        topic: RESPONSE.into(),
        actor: "n1".into(),
        incarnation: 1,
        number: 3,
        filters: filters.to_vec(),
        after: Some("t/1".into()),
        bytes_max: 500,
    };
    assert_eq!(receiver.ordered, Some(expected));
}

#[test]
fn a_peer_asks_again_when_its_link_is_to_do_other_things() {
    let all = Capabilities::OURS.with(Capabilities::RETAINED);
    let mut receiver = Receiver { capabilities: all, ..Receiver::new() };
    let _ = receiver.init("n1", 1, "B");
    assert_eq!(receiver.beat("n1"), Ok(0x10));
    receiver.capabilities = Capabilities::OURS;
    assert_eq!(receiver.beat("n1"), Err("the link is configured anew".to_owned()));
    // EMQX agrees to nothing, and is not disturbed.
    let mut receiver = Receiver::new();
    let _ = receiver.init("n1", 1, "B");
    receiver.capabilities = all;
    assert_eq!(receiver.beat("n1"), Ok(0x10));
}

#[test]
fn a_peer_that_can_do_less_than_when_it_enrolled_is_refused() {
    let topics = LinkTopics::parse(&["t/#"]).unwrap();
    let link = LinkView { capabilities: Capabilities::OURS, demanded: Capabilities::OURS, ..view(&topics) };
    for (capabilities, refused) in [
        (Capabilities::NONE, true),
        (Capabilities::BOOTSTRAP_END, true),
        (Capabilities::OURS, false),
        (Capabilities::OURS.with(Capabilities::RELAY), false),
    ] {
        let mut payload = Vec::new();
        let init =
            ActorInit { actor: "n", incarnation: 1, target_cluster: "B", proto_ver: PROTO_VER, capabilities };
        payload::put_actor_init(&mut payload, &init);
        let (mut session, mut routes) = (IngressSession::default(), RemoteRoutes::default());
        let publish = ControlPublish {
            peer: "A",
            response_topic: Some(RESPONSE),
            correlation_data: Some(b"0123"),
            payload: &payload,
        };
        let mut inflater = Inflater::default();
        let decision = control(&mut session, Some(&link), &mut routes, &mut inflater, NOW, publish);
        let ControlDecision::Reply { refusal, .. } = decision else { panic!("{decision:?}") };
        assert_eq!(refusal, refused.then_some(FEWER_CAPABILITIES), "{capabilities:?}");
        assert_eq!(session.actor().is_none(), refused);
    }
}
