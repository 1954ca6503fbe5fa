//! The edges of the drawing, one by one, against a scripted peer.

mod demanded;
mod pages;

use super::*;
use crate::link::extension::Capabilities;
use crate::link::extension::Received;
use crate::link::extension::RouteDigest;
use crate::link::extension::Sent;
use crate::link::payload::ActorInitAck;
use crate::link::payload::Control;
use crate::link::payload::Heartbeat;
use crate::link::payload::HeartbeatAck;
use crate::link::replicator::output::REASON_CHARS_MAX;

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: 1_000_000 + mono_ms }
}

fn config(topics: &[&str]) -> ReplicatorConfig {
    ReplicatorConfig {
        cluster: "A".into(),
        target_cluster: "B".into(),
        actor: "n1".into(),
        topics: LinkTopics::parse(topics).unwrap(),
        last_incarnation: 0,
        capabilities: Capabilities::NONE,
        demanded: Capabilities::NONE,
        answer_bytes_max: 100_000,
    }
}

fn outputs(replicator: &mut Replicator) -> Vec<Output> {
    std::iter::from_fn(|| replicator.poll_output())
        .filter(|output| !matches!(output, Output::StateChanged(_)))
        .collect()
}

/// The one thing that is published, beside the heartbeat that ends a bootstrap.
fn publish(replicator: &mut Replicator) -> ControlPublish {
    let mut outputs = outputs(replicator);
    if outputs.len() > 1 {
        assert!(matches!(outputs.remove(0), Output::Publish(beat) if beat.qos == QoS::AtMostOnce));
    }
    match (outputs.pop(), outputs.is_empty()) {
        (Some(Output::Publish(publish)), true) => publish,
        other => panic!("{other:?}"),
    }
}

/// The items of a route update: `+topic` and `-topic`.
fn items(publish: &ControlPublish) -> Vec<String> {
    let mut inflater = Inflater::default();
    match payload::parse_control(inflater.open(&publish.payload).unwrap()).unwrap() {
        Control::Route(update) => {
            let text = |op: RouteOp<'_>| {
                format!("{}{}", if op.delete { '-' } else { '+' }, std::str::from_utf8(op.topic).unwrap())
            };
            update.ops.map(text).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn ack(result: Result<(), &str>) -> Vec<u8> {
    ack_with(result, Capabilities::NONE)
}

fn ack_with(result: Result<(), &str>, capabilities: Capabilities) -> Vec<u8> {
    let mut out = Vec::new();
    let result = result.map_err(Into::into);
    payload::put_ack(
        &mut out,
        &ActorInitAck {
            actor: "n1",
            proto_ver: 1,
            result,
            need_bootstrap: Some(false),
            capabilities,
            reach: Vec::new(),
            version: None,
        },
    );
    out
}

fn snapshot(filters: &[&str]) -> Snapshot {
    let routes: Vec<LocalRoute> = filters.iter().map(|filter| LocalRoute::plain(filter)).collect();
    Box::new(routes.into_iter())
}

/// Up to the ack; the snapshot is asked for.
fn handshake(replicator: &mut Replicator, now: Now) {
    handshake_with(replicator, now, Capabilities::NONE);
}

fn handshake_with(replicator: &mut Replicator, now: Now, theirs: Capabilities) {
    assert!(outputs(replicator).contains(&Output::Connect));
    replicator.handle_connected(now, None);
    let expected = Output::Subscribe { filter: "$LINK/cluster/resp/A/n1".into() };
    assert_eq!(outputs(replicator), [expected]);
    replicator.handle_subscribed(now, 1);
    let init = publish(replicator);
    assert_eq!((&*init.topic, init.qos), ("$LINK/cluster/route/A", QoS::AtLeastOnce));
    assert_eq!(init.response_topic.as_deref(), Some("$LINK/cluster/resp/A/n1"));
    replicator.handle_puback(now, init.token, 0x10);
    replicator.handle_response(now, Some(b"someone else's"), &ack(Ok(())));
    assert_eq!(replicator.state(), State::Handshaking);
    let data = init.correlation_data.as_ref().map(|data| &data[..]);
    replicator.handle_response(now, data, &ack_with(Ok(()), theirs));
    assert_eq!(outputs(replicator), [Output::RequestSnapshot]);
}

fn online(topics: &[&str], filters: &[&str]) -> Replicator {
    let mut replicator = Replicator::new(config(topics), 7);
    replicator.start(at(0));
    handshake(&mut replicator, at(0));
    replicator.handle_snapshot(at(0), snapshot(filters));
    if !filters.is_empty() {
        let batch = publish(&mut replicator);
        replicator.handle_puback(at(0), batch.token, 0x10);
    }
    assert_eq!(replicator.state(), State::Online);
    let beat = publish(&mut replicator);
    assert_eq!((beat.qos, beat.token), (QoS::AtMostOnce, 0), "the peer learns that this was all");
    replicator
}

#[test]
fn the_snapshot_goes_out_whatever_the_peer_says_and_changes_follow() {
    let mut replicator = Replicator::new(config(&["a/#", "b"]), 7);
    replicator.start(at(0));
    handshake(&mut replicator, at(0));
    replicator.handle_snapshot(at(0), snapshot(&["a/1", "#", "none"]));
    let batch = publish(&mut replicator);
    assert_eq!(items(&batch), ["+a/1", "+a/#", "+b"]);
    // Changes during the bootstrap wait for its end.
    replicator.handle_route(at(1), &LocalRoute::plain("a/1"), true);
    assert_eq!(outputs(&mut replicator), []);
    replicator.handle_puback(at(2), batch.token, 0x10);
    assert_eq!(replicator.state(), State::Online);
    assert_eq!(items(&publish(&mut replicator)), ["-a/1"]);
}

#[test]
fn an_empty_snapshot_sends_nothing() {
    let replicator = online(&["a"], &[]);
    assert_eq!(replicator.poll_timeout(), Some(HEARTBEAT_MS));
}

#[test]
fn changes_are_gathered_and_sent_one_batch_at_a_time() {
    let mut replicator = online(&["#"], &[]);
    replicator.handle_route(at(100), &LocalRoute::plain("x"), false);
    replicator.handle_route(at(105), &LocalRoute::plain("y"), false);
    assert_eq!(replicator.poll_timeout(), Some(100 + GATHER_MS));
    replicator.handle_timeout(at(110));
    let batch = publish(&mut replicator);
    assert_eq!(items(&batch), ["+x", "+y"]);
    replicator.handle_route(at(111), &LocalRoute::plain("x"), true);
    replicator.handle_timeout(at(200));
    assert_eq!(outputs(&mut replicator), []);
    replicator.handle_puback(at(201), batch.token, 0);
    assert_eq!(items(&publish(&mut replicator)), ["-x"]);
}

#[test]
fn heartbeats_begin_with_the_ack_and_go_on_during_the_bootstrap() {
    let mut replicator = Replicator::new(config(&["#"]), 7);
    replicator.start(at(0));
    handshake(&mut replicator, at(0));
    replicator.handle_snapshot(at(0), snapshot(&["x"]));
    let _ = publish(&mut replicator);
    replicator.handle_timeout(at(HEARTBEAT_MS));
    let beat = publish(&mut replicator);
    assert_eq!((beat.qos, beat.token), (QoS::AtMostOnce, 0));
    let mut inflater = Inflater::default();
    let control = payload::parse_control(inflater.open(&beat.payload).unwrap()).unwrap();
    assert_eq!(
        control,
        Control::Heartbeat(Heartbeat { actor: "n1", incarnation: 1_000_000, ..Heartbeat::default() })
    );
}

#[test]
fn a_peer_with_a_new_connection_is_reassured_once_we_are_online() {
    let mut replicator = Replicator::new(config(&["#"]), 7);
    replicator.start(at(0));
    replicator.reassure(at(0));
    handshake(&mut replicator, at(0));
    replicator.reassure(at(0));
    assert_eq!(outputs(&mut replicator), [], "there is more to come that the peer has to know first");
    let mut replicator = online(&["#"], &["x"]);
    replicator.reassure(at(400));
    assert_eq!(publish(&mut replicator).token, 0);
    assert_eq!(replicator.poll_timeout(), Some(400 + HEARTBEAT_MS));
}

#[test]
fn after_an_outage_the_snapshot_is_followed_by_the_deletions_of_the_gap() {
    let mut replicator = online(&["#"], &["x", "y"]);
    replicator.handle_disconnected(None);
    replicator.handle_route(at(50), &LocalRoute::plain("x"), true);
    replicator.handle_route(at(60), &LocalRoute::plain("z"), false);
    let retry = replicator.poll_timeout().unwrap();
    assert!((RECONNECT_FIRST_MS..=RECONNECT_FIRST_MS * 5 / 4).contains(&retry), "{retry}");
    replicator.handle_timeout(at(retry));
    handshake(&mut replicator, at(retry));
    replicator.handle_snapshot(at(retry), snapshot(&["y", "z"]));
    let batch = publish(&mut replicator);
    assert_eq!(items(&batch), ["+y", "+z"]);
    replicator.handle_puback(at(retry), batch.token, 0x10);
    assert_eq!(items(&publish(&mut replicator)), ["-x"]);
    assert_eq!(replicator.incarnation(), 1_000_000, "the same life");
}

#[test]
fn a_batch_that_got_lost_is_not_forgotten() {
    let mut replicator = online(&["#"], &["x"]);
    replicator.handle_route(at(1), &LocalRoute::plain("x"), true);
    replicator.handle_timeout(at(1 + GATHER_MS));
    assert_eq!(items(&publish(&mut replicator)), ["-x"]);
    replicator.handle_disconnected(None);
    let retry = replicator.poll_timeout().unwrap();
    replicator.handle_timeout(at(retry));
    handshake(&mut replicator, at(retry));
    replicator.handle_snapshot(at(retry), snapshot(&[]));
    assert_eq!(items(&publish(&mut replicator)), ["-x"]);
}

#[test]
fn too_many_changes_start_a_new_incarnation() {
    let mut replicator = online(&["#"], &["x"]).with_pending(Pending::new(2, 1_000));
    for filter in ["a", "b", "c"] {
        replicator.handle_route(at(10), &LocalRoute::plain(filter), false);
    }
    assert_eq!(outputs(&mut replicator), [Output::Close(Some(Problem::Overflow))]);
    assert_eq!((replicator.state(), replicator.pending()), (State::Disconnected, 0));
    let retry = replicator.poll_timeout().unwrap();
    replicator.handle_timeout(at(retry));
    assert_eq!(replicator.incarnation(), 1_000_000 + retry);
}

#[test]
fn incarnations_rise_even_if_the_clock_does_not() {
    let mut replicator =
        Replicator::new(ReplicatorConfig { last_incarnation: 5_000_000, ..config(&["#"]) }, 7);
    replicator.start(at(0));
    assert_eq!(replicator.incarnation(), 5_000_001);
    // The peer remembers a later life: it says so by 0x83 and no ack.
    let _ = outputs(&mut replicator);
    replicator.handle_connected(at(0), None);
    replicator.handle_disconnected(Some(0x83));
    assert_eq!(replicator.problem(), Some(&Problem::Disconnected(0x83)));
    replicator.handle_timeout(at(10_000));
    assert_eq!(replicator.incarnation(), 5_000_002);
}

#[test]
fn a_rejection_is_shown_and_tried_again_after_the_full_interval() {
    let mut replicator = Replicator::new(config(&["#"]), 7);
    replicator.start(at(0));
    let _ = outputs(&mut replicator);
    replicator.handle_connected(at(1_000), None);
    replicator.handle_subscribed(at(1_000), 1);
    let mut outputs_so_far = outputs(&mut replicator);
    let Some(Output::Publish(init)) = outputs_so_far.pop() else { panic!("actor_init") };
    let correlation = init.correlation_data.unwrap();
    // The ack may come before the PUBACK.
    replicator.handle_response(at(1_001), Some(&correlation), &ack(Err("unknown_cluster")));
    let problem = Problem::Rejected("unknown_cluster".into());
    assert_eq!(outputs(&mut replicator), [Output::Close(Some(problem.clone()))]);
    assert_eq!(replicator.problem(), Some(&problem));
    let retry = replicator.poll_timeout().unwrap();
    assert!((RECONNECT_MS..=RECONNECT_MS * 5 / 4).contains(&retry), "from start to start: {retry}");
}

#[test]
fn what_a_peer_says_is_one_short_line_to_the_log() {
    let problem = Problem::rejected("no\n2026-01-01 ERROR \u{1b}[31mforged \"line\"");
    assert_eq!(problem.to_string(), r#"rejected: no\n2026-01-01 ERROR \u{1b}[31mforged \"line\""#);
    let Problem::Rejected(text) = Problem::rejected(&"\n".repeat(1_000_000)) else {
        panic!("not a rejection")
    };
    assert_eq!(text, "\\n".repeat(REASON_CHARS_MAX / 2));
    // The way from the peer's ack to the problem.
    let mut replicator = Replicator::new(config(&["#"]), 7);
    replicator.start(at(0));
    replicator.handle_connected(at(0), None);
    replicator.handle_subscribed(at(0), 1);
    let Some(Output::Publish(init)) = outputs(&mut replicator).pop() else { panic!("actor_init") };
    replicator.handle_response(
        at(1),
        init.correlation_data.as_ref().map(|data| &data[..]),
        &ack(Err("a\nb")),
    );
    assert_eq!(replicator.problem(), Some(&Problem::Rejected("a\\nb".to_owned())));
}

#[test]
fn refusals_are_reported_at_once() {
    for step in 0..4 {
        let mut replicator = Replicator::new(config(&["#"]), 7);
        replicator.start(at(0));
        let _ = outputs(&mut replicator);
        replicator.handle_connected(at(0), None);
        replicator.handle_subscribed(at(0), if step == 0 { 0x87 } else { 1 });
        let problem = match step {
            0 => Problem::SubscribeRefused(0x87),
            1 => {
                let token = replicator.token;
                replicator.handle_puback(at(0), token, 0x87);
                Problem::PublishRefused(0x87)
            }
            2 => {
                let correlation = replicator.correlation;
                replicator.handle_response(at(0), Some(&correlation), b"garbage");
                Problem::UnreadableAck
            }
            _ => {
                replicator.handle_timeout(at(ACK_TIMEOUT_MS));
                Problem::AckTimeout
            }
        };
        assert_eq!(outputs(&mut replicator).pop(), Some(Output::Close(Some(problem))), "{step}");
        assert_eq!(replicator.state(), State::Disconnected);
    }
}

#[test]
fn silence_is_not_waited_for_without_end() {
    let mut replicator = Replicator::new(config(&["#"]), 7);
    replicator.start(at(0));
    let _ = outputs(&mut replicator);
    replicator.handle_timeout(at(CONNECT_TIMEOUT_MS));
    assert_eq!(outputs(&mut replicator), [Output::Close(Some(Problem::ConnectTimeout))]);
    let mut replicator = online(&["#"], &[]);
    replicator.handle_route(at(0), &LocalRoute::plain("x"), false);
    replicator.handle_timeout(at(GATHER_MS));
    let _ = publish(&mut replicator);
    let (mut now, mut closed) = (0, false);
    while let Some(due) = replicator.poll_timeout().filter(|_| !closed) {
        now = due;
        replicator.handle_timeout(at(due));
        closed = outputs(&mut replicator).contains(&Output::Close(Some(Problem::PubackTimeout)));
    }
    assert_eq!((closed, now), (true, GATHER_MS + PUBACK_TIMEOUT_MS));
}

/// Case 8 of `link-protocol.md` 8.
#[test]
fn an_ack_that_does_not_come_costs_the_connection_and_the_next_one_bootstraps() {
    let mut replicator = Replicator::new(config(&["#"]), 7);
    replicator.start(at(0));
    let incarnation = replicator.incarnation();
    let _ = outputs(&mut replicator);
    replicator.handle_connected(at(0), None);
    let _ = outputs(&mut replicator);
    replicator.handle_subscribed(at(0), 1);
    let init = publish(&mut replicator);
    replicator.handle_puback(at(1), init.token, 0x10);
    replicator.handle_timeout(at(1 + ACK_TIMEOUT_MS));
    assert_eq!(outputs(&mut replicator), [Output::Close(Some(Problem::AckTimeout))]);
    let again = replicator.poll_timeout().unwrap();
    replicator.handle_timeout(at(again));
    handshake(&mut replicator, at(again));
    // What answers the first one comes too late to be of use.
    replicator.handle_response(at(again), init.correlation_data.as_ref().map(|data| &data[..]), &ack(Ok(())));
    replicator.handle_snapshot(at(again), snapshot(&["x"]));
    assert_eq!(items(&publish(&mut replicator)), ["+x"]);
    assert_eq!(replicator.incarnation(), incarnation, "one actor");
}

#[test]
fn a_stop_takes_the_routes_back() {
    let mut replicator = online(&["#"], &["x", "y"]);
    replicator.stop(at(10));
    assert_eq!(outputs(&mut replicator), [Output::RequestSnapshot]);
    replicator.handle_snapshot(at(10), snapshot(&["x", "y"]));
    let batch = publish(&mut replicator);
    assert_eq!(items(&batch), ["-x", "-y"]);
    replicator.handle_puback(at(11), batch.token, 0x10);
    assert_eq!(outputs(&mut replicator), [Output::Close(None)]);
    assert_eq!((replicator.state(), replicator.poll_timeout()), (State::Stopped, None));
    // A peer that does not answer does not hold it up.
    let mut replicator = online(&["#"], &["x"]);
    replicator.stop(at(10));
    replicator.handle_snapshot(at(10), snapshot(&["x"]));
    let _ = outputs(&mut replicator);
    replicator.handle_timeout(at(10 + STOP_TIMEOUT_MS));
    assert_eq!(outputs(&mut replicator), [Output::Close(None)]);
    // What is started again is a new life.
    replicator.start(at(20_000));
    assert_eq!(replicator.incarnation(), 1_020_000);
}

#[test]
fn batches_are_cut_by_count_and_by_the_peers_packet_size() {
    let filters: Vec<String> = (0..9_000).map(|number| format!("t/{number}")).collect();
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    for maximum_packet_size in [None, Some(2_000), Some(60)] {
        let mut replicator = Replicator::new(config(&["#"]), 7);
        replicator.start(at(0));
        let _ = outputs(&mut replicator);
        replicator.handle_connected(at(0), maximum_packet_size);
        replicator.handle_subscribed(at(0), 1);
        let _ = outputs(&mut replicator);
        let (token, correlation) = (replicator.token, replicator.correlation);
        replicator.handle_puback(at(0), token, 0x10);
        replicator.handle_response(at(0), Some(&correlation), &ack(Ok(())));
        let _ = outputs(&mut replicator);
        replicator.handle_snapshot(at(0), snapshot(&filters));
        let mut sent = Vec::new();
        while replicator.state() == State::Bootstrapping {
            let batch = publish(&mut replicator);
            let items = items(&batch);
            assert!(items.len() <= 4_000);
            assert!(maximum_packet_size.is_none_or(|size| batch.payload.len() < size as usize));
            sent.extend(items);
            replicator.handle_puback(at(0), batch.token, 0x10);
            replicator.outputs.retain(|output| !matches!(output, Output::StateChanged(_)));
        }
        let fit = maximum_packet_size != Some(60);
        assert_eq!((sent.len(), replicator.routes_too_large()), if fit { (9_000, 0) } else { (0, 9_000) });
    }
}

#[test]
fn a_long_snapshot_that_yields_nothing_is_many_turns() {
    let mut replicator = Replicator::new(config(&["x"]), 7);
    replicator.start(at(0));
    handshake(&mut replicator, at(0));
    let routes = (0..SNAPSHOT_TURN + 5).map(|number| LocalRoute::plain(&format!("t/{number}")));
    replicator.handle_snapshot(at(0), Box::new(routes.chain([LocalRoute::plain("#")])));
    assert_eq!(outputs(&mut replicator), []);
    assert_eq!(replicator.poll_timeout(), Some(0));
    replicator.handle_timeout(at(0));
    assert_eq!(items(&publish(&mut replicator)), ["+x"]);
}

/// Online, both ours, with one route.
fn online_with_ours() -> Replicator {
    let mut replicator =
        Replicator::new(ReplicatorConfig { capabilities: Capabilities::OURS, ..config(&["#"]) }, 7);
    replicator.start(at(0));
    handshake_with(&mut replicator, at(0), Capabilities::OURS);
    replicator.handle_snapshot(at(0), snapshot(&["x"]));
    let batch = publish(&mut replicator);
    assert!(is_last(&batch));
    replicator.handle_puback(at(0), batch.token, 0x10);
    assert_eq!(outputs(&mut replicator), [Output::RequestReport]);
    replicator
}

/// The report asked for.
fn report(replicator: &mut Replicator, now: Now, routes: Option<RouteDigest>) -> ControlPublish {
    replicator.handle_report(now, Sent { acknowledged: 3, ..Sent::default() }, routes);
    publish(replicator)
}

/// The short heartbeats up to the next report, which is asked for.
fn beats_of_a_minute(replicator: &mut Replicator, start_ms: u64) {
    for turn in 1..6 {
        replicator.handle_timeout(at(start_ms + turn * HEARTBEAT_MS));
        let beat = publish(replicator);
        assert_eq!(beat.response_topic, None);
        replicator.handle_puback(at(start_ms + turn * HEARTBEAT_MS + 7), beat.token, 0x10);
        assert_eq!(outputs(replicator), [Output::RoundTrip { ms: 7 }]);
    }
    replicator.handle_timeout(at(start_ms + 6 * HEARTBEAT_MS));
    assert_eq!(outputs(replicator), [Output::RequestReport]);
}

fn is_last(publish: &ControlPublish) -> bool {
    let mut inflater = Inflater::default();
    let control = payload::parse_control(inflater.open(&publish.payload).unwrap()).unwrap();
    matches!(control, Control::Route(update) if update.is_last)
}

#[test]
fn the_last_batch_of_a_bootstrap_says_so_to_one_of_ours_only() {
    for (ours, theirs, says_so) in [
        (Capabilities::OURS, Capabilities::OURS, true),
        (Capabilities::OURS, Capabilities::HEARTBEAT_ACK, false),
        (Capabilities::NONE, Capabilities::OURS, false),
    ] {
        let mut replicator = Replicator::new(ReplicatorConfig { capabilities: ours, ..config(&["#"]) }, 7);
        replicator.start(at(0));
        handshake_with(&mut replicator, at(0), theirs);
        let filters: Vec<String> = (0..5_000).map(|number| format!("t/{number}")).collect();
        let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
        replicator.handle_snapshot(at(0), snapshot(&filters));
        let first = publish(&mut replicator);
        assert!(!is_last(&first));
        replicator.handle_puback(at(0), first.token, 0x10);
        let second = publish(&mut replicator);
        assert_eq!((is_last(&second), items(&second).len()), (says_so, 1_000));
        replicator.handle_puback(at(0), second.token, 0x10);
        assert_eq!(replicator.state(), State::Online);
    }
}

#[test]
fn an_empty_bootstrap_says_that_it_is_one() {
    let mut replicator =
        Replicator::new(ReplicatorConfig { capabilities: Capabilities::OURS, ..config(&["#"]) }, 7);
    replicator.start(at(0));
    handshake_with(&mut replicator, at(0), Capabilities::OURS);
    replicator.handle_snapshot(at(0), snapshot(&[]));
    let batch = publish(&mut replicator);
    assert!(is_last(&batch) && items(&batch).is_empty());
    assert_eq!(replicator.state(), State::Bootstrapping);
    replicator.handle_puback(at(1), batch.token, 0x10);
    assert_eq!(replicator.state(), State::Online);
}

fn known(incarnation: u64, routes: RouteDigest) -> Vec<u8> {
    let mut out = Vec::new();
    let ack =
        HeartbeatAck { actor: "n1", incarnation, books: Some(Received::default()), routes: Some(routes) };
    payload::put_heartbeat_ack(&mut out, &ack);
    out
}

#[test]
fn one_of_ours_is_told_what_was_sent_and_which_routes_we_want() {
    let mut replicator = online_with_ours();
    let mut routes = RouteDigest::default();
    routes.add(b"x", b"x");
    let beat = report(&mut replicator, at(0), Some(routes));
    assert_eq!(beat.response_topic.as_deref(), Some("$LINK/cluster/resp/A/n1"));
    let mut inflater = Inflater::default();
    let control = payload::parse_control(inflater.open(&beat.payload).unwrap()).unwrap();
    let Control::Heartbeat(said) = control else { panic!("{control:?}") };
    assert_eq!((said.books.map(|books| books.acknowledged), said.routes), (Some(3), Some(routes)));
    replicator.handle_puback(at(1), beat.token, 0x10);
    replicator.handle_response(at(1), None, &known(said.incarnation + 1, routes));
    replicator.handle_response(at(1), None, &known(said.incarnation, routes));
    let expected = [
        Output::RoundTrip { ms: 1 },
        Output::Received(Received::default()),
        Output::RoutesCompared { differ: false },
    ];
    assert_eq!(outputs(&mut replicator), expected, "the answer to another incarnation is none");
    beats_of_a_minute(&mut replicator, 0);
}

#[test]
fn routes_that_differ_twice_are_all_told_again() {
    let mut replicator = online_with_ours();
    let incarnation = replicator.incarnation();
    let mut routes = RouteDigest::default();
    routes.add(b"x", b"x");
    for (start_ms, given_up) in [(0, false), (60_000, true)] {
        let beat = report(&mut replicator, at(start_ms), Some(routes));
        replicator.handle_puback(at(start_ms), beat.token, 0x10);
        replicator.handle_response(at(start_ms), None, &known(incarnation, RouteDigest::default()));
        let found = outputs(&mut replicator);
        assert!(found.contains(&Output::RoutesCompared { differ: given_up }));
        assert_eq!(found.contains(&Output::Close(Some(Problem::RoutesDiffer))), given_up);
        if !given_up {
            beats_of_a_minute(&mut replicator, start_ms);
        }
    }
    replicator.handle_timeout(at(70_000));
    assert_eq!(outputs(&mut replicator), [Output::Connect]);
    assert!(replicator.incarnation() > incarnation);
}

#[test]
fn a_route_that_changes_meanwhile_makes_no_difference() {
    let mut replicator = online_with_ours();
    replicator.handle_route(at(0), &LocalRoute::plain("y"), false);
    let beat = report(&mut replicator, at(0), Some(RouteDigest::default()));
    let mut inflater = Inflater::default();
    let control = payload::parse_control(inflater.open(&beat.payload).unwrap()).unwrap();
    assert!(matches!(control, Control::Heartbeat(Heartbeat { books: Some(_), routes: None, .. })));
}

#[test]
fn one_of_ours_that_acknowledges_no_heartbeat_is_given_up() {
    let mut replicator = online_with_ours();
    assert_eq!(report(&mut replicator, at(0), None).qos, QoS::AtLeastOnce);
    for turn in 1..=2 {
        replicator.handle_timeout(at(turn * HEARTBEAT_MS));
        assert_eq!(publish(&mut replicator).qos, QoS::AtMostOnce, "one is owed already");
    }
    replicator.handle_timeout(at(3 * HEARTBEAT_MS));
    assert_eq!(outputs(&mut replicator), [Output::Close(Some(Problem::PubackTimeout))]);
}

#[test]
fn how_long_the_peer_lacks_a_change_is_known() {
    let mut replicator = online(&["#"], &[]);
    assert_eq!(replicator.behind_since_ms(), None);
    replicator.handle_route(at(100), &LocalRoute::plain("y"), false);
    replicator.handle_route(at(105), &LocalRoute::plain("z"), false);
    assert_eq!(replicator.behind_since_ms(), Some(100));
    replicator.handle_timeout(at(110));
    let batch = publish(&mut replicator);
    assert_eq!(replicator.behind_since_ms(), Some(100));
    replicator.handle_puback(at(150), batch.token, 0x10);
    assert_eq!(replicator.behind_since_ms(), None);
}
