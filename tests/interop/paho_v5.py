"""paho-mqtt as a client of MQTT 5.0."""

from paho.mqtt.subscribeoptions import SubscribeOptions
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.packettypes import PacketTypes

from harness import case, expect, expect_equal, until
from peer import Peer, properties


@case
def a_client_without_an_identifier_gets_one(broker):
    peer = Peer(broker, client_id="")
    expect(len(peer.properties.AssignedClientIdentifier) > 0, "no Assigned Client Identifier")
    peer.close()


@case
def properties_come_through_unchanged(broker):
    peer = Peer(broker)
    peer.subscribe("v5/properties", 1)
    sent = properties("PUBLISH", ContentType="text/plain", ResponseTopic="re/ply", CorrelationData=b"\x00\xff",
                      PayloadFormatIndicator=1, MessageExpiryInterval=1000,
                      UserProperty=[("a", "1"), ("b", "2"), ("a", "3")])
    peer.publish("v5/properties", "x", 1, props=sent)
    found = peer.inbox.take().properties
    expect_equal(found.ContentType, "text/plain", "Content Type")
    expect_equal(found.ResponseTopic, "re/ply", "Response Topic")
    expect_equal(found.CorrelationData, b"\x00\xff", "Correlation Data")
    expect_equal(found.PayloadFormatIndicator, 1, "Payload Format Indicator")
    expect(990 <= found.MessageExpiryInterval <= 1000, f"Message Expiry Interval {found.MessageExpiryInterval}")
    expect_equal(found.UserProperty, [("a", "1"), ("b", "2"), ("a", "3")], "User Properties and their order")
    peer.close()


@case
def subscription_identifiers_name_every_subscription(broker):
    peer = Peer(broker)
    peer.subscribe("v5/ids/+", 1, props=properties("SUBSCRIBE", SubscriptionIdentifier=3))
    peer.subscribe("v5/ids/a", 2, props=properties("SUBSCRIBE", SubscriptionIdentifier=268435455))
    peer.publish("v5/ids/b", "one", 1)
    expect_equal(peer.inbox.take().properties.SubscriptionIdentifier, [3], "one subscription")
    peer.publish("v5/ids/a", "two", 2)
    found = list(peer.inbox.take().properties.SubscriptionIdentifier)
    if len(found) == 1:
        found += peer.inbox.take().properties.SubscriptionIdentifier
    expect_equal(sorted(found), [3, 268435455], "two subscriptions")
    peer.close()


@case
def a_topic_alias_of_the_client_is_understood(broker):
    peer = Peer(broker)
    expect(peer.properties.TopicAliasMaximum > 0, "no Topic Alias Maximum")
    peer.subscribe("v5/alias/#", 1)
    peer.publish("v5/alias/a", "first", 1, props=properties("PUBLISH", TopicAlias=1))
    peer.publish("", "second", 1, props=properties("PUBLISH", TopicAlias=1))
    peer.publish("v5/alias/b", "third", 1, props=properties("PUBLISH", TopicAlias=1))
    peer.publish("", "fourth", 0, props=properties("PUBLISH", TopicAlias=1))
    found = [peer.take() for _ in range(4)]
    expect_equal([(topic, payload) for topic, _, _, payload in found],
                 [("v5/alias/a", "first"), ("v5/alias/a", "second"), ("v5/alias/b", "third"), ("v5/alias/b", "fourth")],
                 "topics")
    peer.close()


@case
def a_topic_alias_of_nothing_ends_the_connection(broker):
    peer = Peer(broker)
    peer.client.publish("", "x", 0, properties=properties("PUBLISH", TopicAlias=9))
    reason = peer.wait_closed()
    expect(reason.value in (0x82, 0x94), f"DISCONNECT {reason}")


@case
def a_topic_alias_of_ours_is_understood(broker):
    """Paho keeps no aliases but hands them on: whether we use them or not, each message has to have its topic."""
    peer = Peer(broker, connect_properties=properties("CONNECT", TopicAliasMaximum=0))
    peer.subscribe("v5/no-alias", 1)
    for number in range(3):
        peer.publish("v5/no-alias", str(number), 1)
    found = [peer.inbox.take() for _ in range(3)]
    expect_equal([message.topic for message in found], ["v5/no-alias"] * 3, "topics")
    expect(not any(hasattr(message.properties, "TopicAlias") for message in found), "an alias nobody asked for")
    peer.close()


@case
def a_session_is_resumed(broker):
    lasting = properties("CONNECT", SessionExpiryInterval=600)
    first = Peer(broker, "v5-session", connect_properties=lasting)
    expect(not first.flags.session_present, "Session Present at Clean Start")
    first.subscribe("v5/session/#", 2)
    first.close()
    other = Peer(broker)
    for qos in (1, 2):
        other.publish(f"v5/session/{qos}", str(qos), qos)
    again = Peer(broker, "v5-session", clean=False, connect_properties=lasting)
    expect(again.flags.session_present, "no Session Present")
    expect_equal([again.take()[3] for _ in range(2)], ["1", "2"], "what was missed")
    again.close(props=properties("DISCONNECT", SessionExpiryInterval=0))
    fresh = Peer(broker, "v5-session", clean=False)
    expect(not fresh.flags.session_present, "DISCONNECT could not shorten the session")
    fresh.close()
    other.close()


@case
def unacknowledged_messages_come_again_in_order(broker):
    """The connection ends after PUBLISH arrived and before PUBACK was sent: the same messages, flagged DUP."""
    lasting = properties("CONNECT", SessionExpiryInterval=600)
    first = Peer(broker, "v5-once", connect_properties=lasting, ack_by_hand=True)
    first.subscribe("v5/once", 1)
    other = Peer(broker)
    for number in range(5):
        other.publish("v5/once", str(number), 1)
    expect_equal([message.payload for message in first.inbox.take_all(5)], [b"0", b"1", b"2", b"3", b"4"], "first delivery")
    first.vanish()
    again = Peer(broker, "v5-once", clean=False, connect_properties=lasting)
    found = again.inbox.take_all(5)
    expect_equal([message.payload for message in found], [b"0", b"1", b"2", b"3", b"4"], "order of redelivery")
    expect(all(message.dup for message in found), "redelivery without DUP")
    again.expect_nothing_before(other, "v5/once")
    again.close()
    other.close()


@case
def receive_maximum_bounds_what_is_in_flight(broker):
    limited = properties("CONNECT", ReceiveMaximum=2)
    peer = Peer(broker, connect_properties=limited, ack_by_hand=True)
    peer.subscribe("v5/window", 1)
    other = Peer(broker)
    for number in range(4):
        other.publish("v5/window", str(number), 1)
    taken = peer.inbox.take_all(2)
    # What it publishes and gets itself at QoS 0 needs no room in the window and comes after what was sent before it.
    peer.subscribe("v5/window-over", 0)
    expect(peer.inbox.is_empty(), "more in flight than Receive Maximum")
    for message in taken:
        peer.client.ack(message.mid, message.qos)
    expect_equal([message.payload for message in peer.inbox.take_all(2)], [b"2", b"3"], "after PUBACK")
    peer.close()
    other.close()


@case
def no_local_keeps_own_messages_away(broker):
    peer, other = Peer(broker), Peer(broker)
    peer.subscribe("v5/no-local", options=SubscribeOptions(qos=1, noLocal=True))
    peer.publish("v5/no-local", "own", 1)
    other.publish("v5/no-local", "other's", 1)
    expect_equal(peer.take()[3], "other's", "message")
    peer.close()
    other.close()


@case
def retain_handling_and_retain_as_published(broker):
    peer = Peer(broker)
    peer.publish("v5/retain", "kept", 1, retain=True)
    never = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
    if_new = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB, retainAsPublished=True)
    peer.subscribe("v5/retain", options=never)
    peer.expect_nothing_before(peer, "v5/retain")
    peer.unsubscribe("v5/retain")
    peer.subscribe("v5/retain", options=if_new)
    expect_equal(peer.take()[2:], (True, "kept"), "a new subscription")
    peer.subscribe("v5/retain", options=if_new)
    peer.publish("v5/retain", "live", 1, retain=True)
    expect_equal(peer.take()[2:], (True, "live"), "Retain As Published")
    peer.publish("v5/retain", "", 1, retain=True)
    peer.close()


@case
def a_will_has_properties_and_a_reason_to_come(broker):
    watcher = Peer(broker)
    watcher.subscribe("v5/will", 1)
    will = ("v5/will", "gone", 1, False, properties("WILLMESSAGE", ContentType="text/plain", UserProperty=("k", "v")))
    # DISCONNECT 0x00: no Will. DISCONNECT 0x04: with Will.
    Peer(broker, "v5-will", will=will).close()
    Peer(broker, "v5-will", will=will).close(reason=ReasonCode(PacketTypes.DISCONNECT, identifier=0x04))
    message = watcher.inbox.take()
    expect_equal((message.payload, message.properties.ContentType), (b"gone", "text/plain"), "Will")
    expect_equal(message.properties.UserProperty, [("k", "v")], "its User Property")
    watcher.expect_nothing_before(watcher, "v5/will")
    watcher.close()


@case
def a_delayed_will_is_dropped_when_the_client_comes_back(broker):
    watcher = Peer(broker)
    watcher.subscribe("v5/delayed", 1)
    will = ("v5/delayed", "gone", 1, False, properties("WILLMESSAGE", WillDelayInterval=3600))
    lasting = properties("CONNECT", SessionExpiryInterval=7200)
    Peer(broker, "v5-delayed", will=will, connect_properties=lasting).vanish()
    back = Peer(broker, "v5-delayed", clean=False, connect_properties=lasting)
    expect(back.flags.session_present, "no Session Present")
    watcher.expect_nothing_before(watcher, "v5/delayed")
    # The end of the session publishes a delayed Will at once.
    back.close()
    Peer(broker, "v5-delayed", will=will, clean=False, connect_properties=lasting).vanish()
    Peer(broker, "v5-delayed", clean=True).close()
    expect_equal(watcher.take()[3], "gone", "Will at the end of the session")
    watcher.close()


@case
def a_takeover_says_so(broker):
    first = Peer(broker, "v5-takeover")
    second = Peer(broker, "v5-takeover")
    expect_equal(first.wait_closed().value, 0x8E, "DISCONNECT")
    second.close()


@case
def shared_subscriptions_divide_the_messages(broker):
    members = [Peer(broker) for _ in range(3)]
    for member in members:
        member.subscribe("$share/g/v5/shared/+", 1)
    other = Peer(broker)
    for number in range(30):
        other.publish(f"v5/shared/{number % 4}", str(number), 1)
    until(lambda: sum(member.inbox.messages.qsize() for member in members) >= 30, "the arrival of all messages")
    found = [[message.payload for message in member.inbox.take_all(member.inbox.messages.qsize())] for member in members]
    expect_equal([len(part) for part in found], [10, 10, 10], "round robin")
    expect_equal(len({payload for part in found for payload in part}), 30, "different messages")
    for peer in [*members, other]:
        peer.close()


@case
def what_the_acl_denies_is_answered(broker):
    peer = Peer(broker)
    expect_equal(peer.publish("$SYS/x", "x", 1).value, 0x87, "PUBACK")
    expect_equal(peer.publish("$LINK/cluster/msg/B", "x", 1).value, 0x87, "PUBACK under $LINK")
    expect_equal([reason.value for reason in peer.subscribe("$LINK/#", 1)], [0x87], "SUBACK")
    expect_equal([reason.value for reason in peer.subscribe("$share/g/$LINK/#", 1)], [0x87], "shared SUBACK")
    peer.close()


@case
def answers_name_what_is_missing(broker):
    peer = Peer(broker)
    expect_equal(peer.publish("v5/nobody/listens", "x", 1).value, 0x10, "PUBACK")
    expect_equal([reason.value for reason in peer.unsubscribe("v5/never/subscribed")], [0x11], "UNSUBACK")
    peer.close()


@case
def a_wrong_password_is_refused_and_does_not_say_what_is_wrong(broker):
    answers = []
    for user in [("alice", "wrong"), ("nobody", "secret")]:
        peer = Peer(broker, user=user, wanted=None)
        peer.client.loop_stop()
        answers.append(peer.reply.value)
    expect(answers[0] in (0x86, 0x87), f"CONNACK {answers[0]:#x}")
    expect_equal(answers[0], answers[1], "an unknown user is told the same")
    Peer(broker, user=("alice", "secret")).close()


@case
def a_large_message_arrives_and_a_larger_one_is_refused(broker):
    peer = Peer(broker)
    peer.subscribe("v5/large", 1)
    peer.publish("v5/large", "x" * 1_000_000, 1)
    expect_equal(len(peer.take()[3]), 1_000_000, "payload")
    limit = peer.properties.MaximumPacketSize
    peer.client.publish("v5/large", "x" * (limit + 1), 1)
    reason = peer.wait_closed()
    expect(reason.value in (0x95, 0x80), f"DISCONNECT {reason}")


@case
def maximum_packet_size_of_the_client_is_kept(broker):
    """What is too large for a client is not sent to it."""
    small = Peer(broker, connect_properties=properties("CONNECT", MaximumPacketSize=200))
    small.subscribe("v5/small", 1)
    other = Peer(broker)
    other.publish("v5/small", "x" * 1000, 1)
    other.publish("v5/small", "fits", 1)
    expect_equal(small.take()[3], "fits", "message")
    small.close()
    other.close()


@case
def over_websocket(broker):
    peer = Peer(broker, transport="websockets")
    peer.subscribe("v5/ws", 2)
    for qos in (0, 1, 2):
        peer.publish("v5/ws", "x" * 70_000, qos)
        expect_equal(len(peer.take()[3]), 70_000, "payload")
    peer.close()
