"""paho-mqtt as a client of MQTT 3.1.1 and 3.1."""

import paho.mqtt.client as mqtt

from harness import case, expect, expect_equal
from peer import Peer


@case
def an_unacknowledged_message_comes_again(broker):
    """A client that loses its connection before PUBACK gets the message again, with DUP."""
    first = Peer(broker, "v3-redeliver", mqtt.MQTTv311, clean=False, ack_by_hand=True)
    first.subscribe("v3/redeliver", 1)
    other = Peer(broker, version=mqtt.MQTTv311)
    other.publish("v3/redeliver", "x", 1)
    expect(not first.inbox.take().dup, "DUP the first time")
    first.vanish()
    again = Peer(broker, "v3-redeliver", mqtt.MQTTv311, clean=False)
    expect(again.flags.session_present, "no Session Present")
    message = again.inbox.take()
    expect_equal((message.payload, message.dup), (b"x", True), "second delivery")
    other.close()
    again.close()


@case
def a_session_keeps_subscriptions_and_messages(broker):
    Peer(broker, "v3-session", mqtt.MQTTv311, clean=True).close()
    first = Peer(broker, "v3-session", mqtt.MQTTv311, clean=False)
    expect(not first.flags.session_present, "Session Present after a clean session")
    first.subscribe("v3/session/#", 2)
    first.close()
    other = Peer(broker, version=mqtt.MQTTv311)
    for qos in (1, 2):
        other.publish(f"v3/session/{qos}", str(qos), qos)
    again = Peer(broker, "v3-session", mqtt.MQTTv311, clean=False)
    expect(again.flags.session_present, "no Session Present")
    expect_equal([again.take()[3] for _ in range(2)], ["1", "2"], "what was missed")
    again.unsubscribe("v3/session/#")
    again.close()
    other.close()


@case
def a_clean_session_forgets(broker):
    Peer(broker, "v3-clean", mqtt.MQTTv311, clean=False).close()
    Peer(broker, "v3-clean", mqtt.MQTTv311, clean=True).close()
    again = Peer(broker, "v3-clean", mqtt.MQTTv311, clean=False)
    expect(not again.flags.session_present, "the session outlived a clean one")
    again.close()


@case
def a_second_connection_takes_over(broker):
    first = Peer(broker, "v3-takeover", mqtt.MQTTv311)
    second = Peer(broker, "v3-takeover", mqtt.MQTTv311)
    first.wait_closed()
    second.publish("v3/takeover", "x", 1)
    second.close()


@case
def wrong_passwords_are_refused_with_the_code_of_the_version(broker):
    """0x04 or 0x05 in 3.x, which paho shows as their 5.0 counterparts."""
    Peer(broker, version=mqtt.MQTTv311, user=("alice", "secret")).close()
    for user in [("alice", "wrong"), ("nobody", "secret")]:
        peer = Peer(broker, version=mqtt.MQTTv311, user=user, wanted=None)
        peer.client.loop_stop()
        expect(peer.reply.value in (0x86, 0x87), f"{user}: {peer.reply}")


@case
def a_refused_subscription_has_0x80(broker):
    """The shipped ACL: nobody subscribes to `#` or under $LINK/."""
    peer = Peer(broker, version=mqtt.MQTTv311)
    for filter in ["#", "$LINK/#", "$SYS/#"]:
        reasons = peer.subscribe(filter)
        expect_equal([reason.value for reason in reasons], [0x80], filter)
    peer.close()


@case
def overlapping_subscriptions_deliver(broker):
    """Once or once for each: the standard allows both; the QoS is the highest that was granted."""
    peer = Peer(broker, version=mqtt.MQTTv311)
    peer.subscribe("v3/overlap/+", 0)
    peer.subscribe("v3/overlap/a", 2)
    peer.publish("v3/overlap/a", "x", 2)
    expect_equal(peer.take()[1], 2, "QoS")
    peer.close()


@case
def over_websocket(broker):
    peer = Peer(broker, version=mqtt.MQTTv311, transport="websockets")
    peer.subscribe("v3/ws", 2)
    peer.publish("v3/ws", "x" * 100_000, 2)
    expect_equal(len(peer.take()[3]), 100_000, "payload")
    peer.close()
