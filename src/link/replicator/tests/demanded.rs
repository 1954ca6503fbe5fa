//! Peers that can do less than they must.

use super::*;

#[test]
fn a_peer_that_can_do_less_than_when_it_enrolled_is_left() {
    for theirs in [Capabilities::NONE, Capabilities::BOOTSTRAP_END] {
        let ours = Capabilities::OURS;
        let mut replicator =
            Replicator::new(ReplicatorConfig { capabilities: ours, demanded: ours, ..config(&["#"]) }, 7);
        replicator.start(at(0));
        outputs(&mut replicator);
        replicator.handle_connected(at(0), None);
        outputs(&mut replicator);
        replicator.handle_subscribed(at(0), 1);
        let init = publish(&mut replicator);
        replicator.handle_puback(at(0), init.token, 0x10);
        let data = init.correlation_data.as_ref().map(|data| &data[..]);
        replicator.handle_response(at(0), data, &ack_with(Ok(()), theirs));
        let problem = Problem::Less(ours.without(theirs));
        assert!(problem.to_string().ends_with("heartbeat_ack"), "{problem}");
        assert_eq!(outputs(&mut replicator), [Output::Close(Some(problem))]);
        assert_eq!(replicator.state(), State::Disconnected);
    }
}
