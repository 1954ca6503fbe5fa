use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::series::PREFIX;
use super::*;

/// What a scraper reads: families by name, samples with their value.
#[derive(Default)]
struct Scrape {
    help: BTreeMap<String, String>,
    kind: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines() {
            let fresh = if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                scrape.help.insert(name.to_owned(), help.to_owned()).is_none()
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                scrape.kind.insert(name.to_owned(), kind.to_owned()).is_none()
            } else {
                let (series, value) = line.rsplit_once(' ').expect(line);
                scrape.samples.insert(series.to_owned(), value.parse().expect(line)).is_none()
            };
            assert!(fresh, "twice: {line}");
        }
        scrape
    }

    fn value(&self, series: &str) -> f64 {
        *self.samples.get(&format!("{PREFIX}{series}")).unwrap_or_else(|| panic!("no {series}"))
    }
}

fn scraped(metrics: &Metrics) -> Scrape {
    Scrape::of(&metrics.render(&ScrapeGauges { durability: "fsync", ..ScrapeGauges::default() }))
}

#[test]
fn every_family_has_help_type_samples_and_a_name_by_the_rules() {
    let metrics = Metrics::new(Now::default());
    let _links = [metrics.link("A"), metrics.link("B")];
    let scrape = scraped(&metrics);
    assert!(scrape.kind.len() > 40, "{}", scrape.kind.len());
    for (name, kind) in &scrape.kind {
        assert!(name.starts_with(PREFIX), "{name}");
        assert!(scrape.help[name].len() > 10, "{name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        assert!(!name.contains("_ms") && !name.contains("_kb"), "{name}: base units");
    }
    let family = |series: &str| {
        let name = series.split('{').next().unwrap().to_owned();
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let is_histogram = |name: &&str| scrape.kind.get(*name).is_some_and(|kind| kind == "histogram");
        of_histogram.filter(is_histogram).map(str::to_owned).unwrap_or(name)
    };
    let named: BTreeSet<String> = scrape.samples.keys().map(|series| family(series)).collect();
    let declared: BTreeSet<String> = scrape.kind.keys().cloned().collect();
    assert_eq!(named, declared);
    assert_eq!(scrape.help.len(), scrape.kind.len());
}

#[test]
fn labels_are_names_of_the_fixed_sets() {
    let metrics = Metrics::new(Now::default());
    let _link = metrics.link("B");
    let allowed = [
        "version", "mode", "listener", "reason", "qos", "type", "action", "result", "peer", "state", "dir",
        "kind", "op", "level", "event", "side", "le",
    ];
    for series in scraped(&metrics).samples.keys() {
        let Some((_, labels)) = series.split_once('{') else { continue };
        for label in labels.trim_end_matches('}').split(',') {
            let (name, _) = label.split_once('=').expect(series);
            assert!(allowed.contains(&name), "{series}");
        }
    }
}

#[test]
fn what_is_counted_is_shown_under_its_label() {
    let metrics = Metrics::new(Now { mono_ms: 1_000, unix_ms: 1_700_000_000_500 });
    let broker = &metrics.broker;
    broker.messages_received[QoS::AtLeastOnce].add(7);
    broker.messages_dropped[DropReason::QueueFull].inc();
    broker.acl_denied[(AclAction::Subscribe, AclReason::ConfinedLink)].inc();
    broker.connections[ListenerType::Wss].inc();
    broker.connections[ListenerType::Wss].inc();
    broker.connections[ListenerType::Wss].dec();
    broker.authentication_failures[DenyReason::BadCredentials].inc();
    broker.peer_refusals[Refusal::NotLoopback].inc();
    broker.bytes_sent.add(1 << 40);
    let gauges = ScrapeGauges {
        now: Now { mono_ms: 3_500, unix_ms: 1_700_000_003_000 },
        durability: "memory",
        retained_bytes: 99,
        ..ScrapeGauges::default()
    };
    let scrape = Scrape::of(&metrics.render(&gauges));
    assert_eq!(scrape.value("messages_received_total{qos=\"1\"}"), 7.0);
    assert_eq!(scrape.value("messages_received_total{qos=\"0\"}"), 0.0);
    assert_eq!(scrape.value("messages_dropped_total{reason=\"queue_full\"}"), 1.0);
    assert_eq!(scrape.value("acl_denied_total{action=\"subscribe\",reason=\"confined_link\"}"), 1.0);
    assert_eq!(scrape.value("acl_denied_total{action=\"publish\",reason=\"confined_link\"}"), 0.0);
    assert_eq!(scrape.value("connections{listener=\"wss\"}"), 1.0);
    assert_eq!(scrape.value("authentication_failures_total{reason=\"bad_credentials\"}"), 1.0);
    assert_eq!(scrape.value("peer_refusals_total{reason=\"not_loopback\"}"), 1.0);
    assert_eq!(scrape.value("bytes_sent_total"), 1_099_511_627_776.0);
    assert_eq!(scrape.value("uptime_seconds"), 2.5);
    assert_eq!(scrape.value("start_time_seconds"), 1_700_000_000.5);
    assert_eq!(scrape.value("durability_info{mode=\"memory\"}"), 1.0);
    assert_eq!(scrape.value("retained_bytes"), 99.0);
}

#[test]
fn a_links_series_come_and_go_with_the_link() {
    let metrics = Metrics::new(Now::default());
    assert!(!scraped(&metrics).kind.contains_key("tombolo_link_up"));

    let link = metrics.link("B");
    link.set_state(LinkState::Active);
    link.messages[(Direction::Out, QoS::AtMostOnce)].add(3);
    link.backoff.set_ms(1_500);
    link.ledger_unaccounted.set(-2);
    link.routes[(Direction::In, RouteKind::Shared)].set_count(u64::MAX);
    assert!(Arc::ptr_eq(&link, &metrics.link("B")));
    let scrape = scraped(&metrics);
    assert_eq!(scrape.value("link_up{peer=\"B\"}"), 1.0);
    assert_eq!(scrape.value("link_state{peer=\"B\",state=\"active\"}"), 1.0);
    assert_eq!(scrape.value("link_state{peer=\"B\",state=\"connecting\"}"), 0.0);
    assert_eq!(scrape.value("link_messages_total{peer=\"B\",dir=\"out\",qos=\"0\"}"), 3.0);
    assert_eq!(scrape.value("link_messages_total{peer=\"B\",dir=\"in\",qos=\"0\"}"), 0.0);
    assert_eq!(scrape.value("link_backoff_seconds{peer=\"B\"}"), 1.5);
    assert_eq!(scrape.value("link_ledger_unaccounted_messages{peer=\"B\"}"), -2.0);

    link.set_state(LinkState::Unauthenticated);
    let scrape = scraped(&metrics);
    assert_eq!(scrape.value("link_up{peer=\"B\"}"), 0.0);
    assert_eq!(scrape.value("link_state{peer=\"B\",state=\"unauthenticated\"}"), 1.0);

    metrics.remove_link("B");
    assert!(scraped(&metrics).samples.keys().all(|series| !series.contains("peer=\"B\"")));
}

#[test]
fn a_packet_type_is_known_by_its_first_byte() {
    assert_eq!(PacketType::of_first_byte(0x10), Some(PacketType::Connect));
    assert_eq!(PacketType::of_first_byte(0x3d), Some(PacketType::Publish));
    assert_eq!(PacketType::of_first_byte(0xf0), Some(PacketType::Auth));
    assert_eq!(PacketType::of_first_byte(0x0f), None);
    assert_eq!(PacketType::from(&crate::mqtt::packet::Packet::PingReq), PacketType::PingReq);
    assert_eq!(PacketType::of_first_byte(0xc0), Some(PacketType::PingReq));
}

/// `config/alerts.yml` names series that exist, with labels and values that they can have.
#[test]
fn the_alerting_rules_are_about_series_that_there_are() {
    let rules = include_str!("../../config/alerts.yml");
    let metrics = Metrics::new(Now::default());
    let (_link, _listener) = (metrics.link("B"), metrics.listener("ssl:links"));
    let scrape = scraped(&metrics);
    let expressions: Vec<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(expressions.len() > 8);
    for expression in expressions {
        for part in expression.split(PREFIX).skip(1) {
            let end =
                part.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_').unwrap_or(part.len());
            let (name, rest) = part.split_at(end);
            let series: Vec<&String> = scrape
                .samples
                .keys()
                .filter(|key| key.strip_prefix(PREFIX).is_some_and(|key| key.split('{').next() == Some(name)))
                .collect();
            assert!(!series.is_empty(), "{name}");
            let Some((labels, _)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
                continue;
            };
            let (label, values) = labels.split_once('=').unwrap();
            for value in values.trim_start_matches('~').trim_matches('"').split('|') {
                let wanted = format!("{label}=\"{value}\"");
                assert!(series.iter().any(|key| key.contains(&wanted)), "{name}: {wanted}");
            }
        }
    }
}
