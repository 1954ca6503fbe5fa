"""paho-mqtt in all three versions of the protocol: what it does the same way in each."""

import paho.mqtt.client as mqtt

from harness import LARGE, VERSIONS, cells, expect, expect_equal, until
from peer import Peer, properties

NAMES = dict(zip(VERSIONS, [mqtt.MQTTv31, mqtt.MQTTv311, mqtt.MQTTv5]))


def join(broker, version, client_id="", **more):
    # 3.1 has no empty identifiers.
    return Peer(broker, client_id or f"paho-{version}-{id(more)}", NAMES[version], **more)


def lasting(version):
    """What makes a session outlive its connection."""
    return {"clean": False, **({"connect_properties": properties("CONNECT", SessionExpiryInterval=600)} if version == "5" else {})}


@cells("paho", "qos", VERSIONS)
def every_qos(broker, version):
    peer = join(broker, version)
    peer.subscribe(f"paho/{version}/qos/#", 2)
    for qos in (0, 1, 2):
        peer.publish(f"paho/{version}/qos/{qos}", str(qos), qos)
        expect_equal(peer.take(), (f"paho/{version}/qos/{qos}", qos, False, str(qos)), "message")
    peer.close()


@cells("paho", "retained", VERSIONS)
def retained_messages_are_kept_and_removed(broker, version):
    topic, peer = f"paho/{version}/retained", join(broker, version)
    peer.publish(topic, "kept", 1, retain=True)
    peer.subscribe(topic, 1)
    expect_equal(peer.take()[2:], (True, "kept"), "retained message")
    peer.publish(topic, "", 1, retain=True)
    later = join(broker, version, "later")
    later.subscribe(topic, 1)
    later.publish(topic, "live", 1)
    expect_equal(later.take()[2:], (False, "live"), "first message after the removal")
    later.close()
    peer.close()


@cells("paho", "will", VERSIONS)
def a_will_is_published_when_a_client_vanishes(broker, version):
    topic, watcher = f"paho/{version}/will", join(broker, version, "watcher")
    watcher.subscribe(topic, 1)
    join(broker, version, "polite", will=(topic, "polite", 1, False)).close()
    join(broker, version, "gone", will=(topic, "gone", 1, False)).vanish()
    expect_equal(watcher.take(), (topic, 1, False, "gone"), "Will")
    watcher.expect_nothing_before(watcher, topic)
    watcher.close()


@cells("paho", "shared", VERSIONS)
def a_shared_subscription_gives_each_message_to_one_member(broker, version):
    topic = f"paho/{version}/shared"
    members = [join(broker, version, f"member-{number}") for number in range(2)]
    for member in members:
        member.subscribe(f"$share/group/{topic}", 1)
    other = join(broker, version, "other")
    for number in range(10):
        other.publish(topic, str(number), 1)
    until(lambda: sum(member.inbox.messages.qsize() for member in members) >= 10, "the arrival of all messages")
    found = [member.inbox.take_all(member.inbox.messages.qsize()) for member in members]
    expect(all(found), "a member got nothing")
    expect_equal(sorted(int(message.payload) for part in found for message in part), list(range(10)), "messages")
    for peer in [*members, other]:
        peer.close()


@cells("paho", "session", VERSIONS)
def a_session_keeps_what_its_client_missed(broker, version):
    topic = f"paho/{version}/session"
    first = join(broker, version, "session", **lasting(version))
    first.subscribe(f"{topic}/+", 2)
    first.close()
    other = join(broker, version, "other")
    for number in range(40):
        other.publish(f"{topic}/{number % 3}", str(number), 1 + number % 2)
    again = join(broker, version, "session", **lasting(version))
    # CONNACK of 3.1 has no Session Present.
    expect(version == "3.1" or again.flags.session_present, "no Session Present")
    # In order, for each QoS: paho passes a message of QoS 2 on at its PUBREL, behind later ones of QoS 1.
    found = [again.take() for _ in range(40)]
    for qos in (1, 2):
        wanted = [str(number) for number in range(40) if 1 + number % 2 == qos]
        expect_equal([message[3] for message in found if message[1] == qos], wanted, f"what was missed at QoS {qos}")
    again.close()
    join(broker, version, "session").close()
    other.close()


@cells("paho", "large", VERSIONS)
def a_large_payload_arrives_whole(broker, version):
    topic, peer = f"paho/{version}/large", join(broker, version)
    peer.subscribe(topic, 2)
    for qos in (0, 1, 2):
        payload = "abc"[qos] * LARGE
        peer.publish(topic, payload, qos)
        expect(peer.take()[3] == payload, f"another payload at QoS {qos}")
    peer.close()
