//! What the peer retains, asked for page by page.

use super::*;
use crate::link::payload::page::PageBuilder;
use crate::link::retained::Applied;
use crate::link::retained::PAGE_TIMEOUT_MS;
use crate::link::retained::tests::outgoing;

/// Online with a peer that tells what it retains, where we want `x` and a share of `y`; the first request.
fn pulling() -> (Replicator, ControlPublish) {
    let both = Capabilities::OURS.with(Capabilities::RETAINED);
    let mut replicator = Replicator::new(ReplicatorConfig { capabilities: both, ..config(&["#"]) }, 7);
    replicator.start(at(0));
    handshake_with(&mut replicator, at(0), both);
    let routes = [LocalRoute::plain("x"), LocalRoute::shared("g", "y")];
    replicator.handle_snapshot(at(0), Box::new(routes.into_iter()));
    let batch = publish(&mut replicator);
    replicator.handle_puback(at(0), batch.token, 0x10);
    let mut outputs = outputs(&mut replicator);
    let Some(Output::AskPage(asked)) = outputs.pop() else { panic!("{outputs:?}") };
    (replicator, asked)
}

/// Number, filters and position of a request.
fn request(publish: &ControlPublish) -> (u64, Vec<String>, Option<String>) {
    let mut inflater = Inflater::default();
    let read = payload::parse_control(inflater.open(&publish.payload).unwrap()).unwrap();
    let Control::RetainedPage(request) = read else { panic!("{read:?}") };
    assert_eq!((request.actor, request.incarnation, request.bytes_max), ("n1", 1_000_000, 100_000));
    (request.number, request.filters.map(str::to_owned).collect(), request.after.map(str::to_owned))
}

fn page(number: u64, up_to: Option<&str>) -> Vec<u8> {
    let page = PageBuilder::new("n1", 1_000_000, number, 5, 1_000);
    page.finish(up_to, &mut Deflater::default(), 100)
}

#[test]
fn what_the_peer_retains_is_asked_for_behind_the_routes_and_page_by_page() {
    let (mut replicator, asked) = pulling();
    assert_eq!(
        (asked.qos, asked.response_topic.as_deref()),
        (QoS::AtLeastOnce, Some("$LINK/cluster/resp/A/n1"))
    );
    assert_eq!(request(&asked), (1, vec!["x".to_owned()], None), "nothing is asked for those that share");
    replicator.handle_puback(at(1), asked.token, 0x10);
    replicator.handle_response(at(1), None, &page(9, None));
    assert_eq!(outputs(&mut replicator), [], "the answer to another request");
    replicator.handle_response(at(1), None, &page(1, Some("a")));
    let Some(Output::Page(first)) = outputs(&mut replicator).pop() else { panic!("no page") };
    assert_eq!((first.up_to.as_deref(), first.since_ms, first.as_of_ms), (Some("a"), 5, 5));
    replicator.handle_applied(at(2), first.up_to, Applied::Done);
    let Some(Output::AskPage(asked)) = outputs(&mut replicator).pop() else { panic!("no request") };
    assert_eq!(request(&asked), (2, vec!["x".to_owned()], Some("a".to_owned())));
    replicator.handle_response(at(3), None, &page(2, None));
    assert!(matches!(outputs(&mut replicator)[..], [Output::Page(_)]));
    replicator.handle_applied(at(3), None, Applied::Done);
    assert_eq!(outputs(&mut replicator), []);
    // A filter that is told later is asked about behind the batch that tells it.
    replicator.handle_route(at(10), &LocalRoute::plain("z"), false);
    replicator.handle_timeout(at(10 + GATHER_MS));
    let outputs = outputs(&mut replicator);
    let [Output::Publish(batch), Output::AskPage(asked)] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!((items(batch), request(asked)), (vec!["+z".to_owned()], (3, vec!["z".to_owned()], None)));
}

#[test]
fn a_peer_that_does_not_tell_what_it_retains_is_not_asked() {
    let all = Capabilities::OURS.with(Capabilities::RETAINED);
    for (ours, theirs) in [(true, false), (false, true)] {
        let capabilities = if ours { all } else { Capabilities::OURS };
        let mut replicator = Replicator::new(ReplicatorConfig { capabilities, ..config(&["#"]) }, 7);
        replicator.start(at(0));
        handshake_with(&mut replicator, at(0), if theirs { all } else { Capabilities::OURS });
        replicator.handle_snapshot(at(0), snapshot(&["x"]));
        let batch = publish(&mut replicator);
        replicator.handle_puback(at(0), batch.token, 0x10);
        assert_eq!(outputs(&mut replicator), [Output::RequestReport]);
    }
}

#[test]
fn a_request_that_is_refused_unanswered_or_answered_wrongly_ends_the_connection() {
    let (mut replicator, asked) = pulling();
    replicator.handle_puback(at(0), asked.token, 0x97);
    assert_eq!(outputs(&mut replicator), [Output::Close(Some(Problem::PublishRefused(0x97)))]);
    let (mut replicator, asked) = pulling();
    replicator.handle_puback(at(0), asked.token, 0x10);
    for turn in 1..3 {
        replicator.handle_timeout(at(turn * HEARTBEAT_MS));
        assert_eq!(replicator.state(), State::Online);
    }
    replicator.handle_timeout(at(PAGE_TIMEOUT_MS));
    assert!(outputs(&mut replicator).contains(&Output::Close(Some(Problem::PageTimeout))));
    let (mut replicator, _) = pulling();
    let mut wrong = PageBuilder::new("n1", 1_000_000, 1, 5, 1_000);
    wrong.push(&outgoing("x", b"", 1));
    replicator.handle_response(at(1), None, &wrong.finish(Some("a"), &mut Deflater::default(), 100));
    assert_eq!(outputs(&mut replicator), [Output::Close(Some(Problem::WrongPage))]);
    assert!(replicator.poll_timeout().is_some());
}
