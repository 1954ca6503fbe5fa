"""paho-mqtt with waiting instead of callbacks."""

import threading

import paho.mqtt.client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.packettypes import PacketTypes

from harness import LIMIT_SECONDS, Failed, Inbox, expect_equal


def properties(packet, **values):
    """Properties of a packet: properties("PUBLISH", ContentType="text/plain")."""
    found = Properties(getattr(PacketTypes, packet))
    for name, value in values.items():
        setattr(found, name, value)
    return found


class Peer:
    """A client that is connected when it exists."""

    def __init__(self, broker, client_id="", version=mqtt.MQTTv5, clean=True, will=None, transport="tcp", port=None,
                 connect_properties=None, wanted=0, user=None, keepalive=60, ack_by_hand=False):
        self.inbox = Inbox()
        self.answers = Inbox()
        self.published = {}
        self.ended = threading.Event()
        self.reason = None
        five = version == mqtt.MQTTv5
        settings = {} if five else {"clean_session": clean}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version, transport=transport,
                                  manual_ack=ack_by_hand, **settings)
        self.client.on_connect = lambda _client, _data, flags, reason, props: self.answers.put((flags, reason, props))
        self.client.on_subscribe = lambda _client, _data, _mid, reasons, _props: self.answers.put(reasons)
        self.client.on_unsubscribe = lambda _client, _data, _mid, reasons, _props: self.answers.put(reasons)
        self.client.on_message = lambda _client, _data, message: self.inbox.put(message)
        self.client.on_publish = self._on_publish
        self.client.on_disconnect = self._on_disconnect
        self.client.reconnect_delay_set(60, 120)
        if user is not None:
            self.client.username_pw_set(*user)
        if will is not None:
            self.client.will_set(*will[:4], **({"properties": will[4]} if len(will) > 4 else {}))
        more = {"clean_start": clean, "properties": connect_properties} if five else {}
        port = port or broker.ports["ws" if transport == "websockets" else "tcp"]
        self.client.connect("127.0.0.1", port, keepalive, **more)
        self.client.loop_start()
        self.flags, self.reply, self.properties = self.answers.take()
        if wanted is not None and self.reply.value != wanted:
            self.client.loop_stop()
            raise Failed(f"CONNACK {self.reply}, wanted {wanted:#x}")

    def _on_publish(self, _client, _data, mid, reason, _props):
        self.published[mid] = reason

    def _on_disconnect(self, _client, _data, _flags, reason, _props):
        self.reason = reason
        self.ended.set()

    def subscribe(self, filter, qos=0, options=None, props=None):
        if options is not None:
            self.client.subscribe(filter, options=options, properties=props)
        else:
            self.client.subscribe(filter, qos, properties=props)
        return self.answers.take()

    def unsubscribe(self, filter):
        self.client.unsubscribe(filter)
        return self.answers.take()

    def publish(self, topic, payload="", qos=0, retain=False, props=None):
        """Publishes, waits for the acknowledgement, gives its Reason Code."""
        info = self.client.publish(topic, payload, qos, retain, properties=props)
        info.wait_for_publish(LIMIT_SECONDS)
        if not info.is_published():
            raise Failed(f"PUBLISH to {topic} at QoS {qos} was not acknowledged")
        return self.published.get(info.mid)

    def take(self):
        message = self.inbox.take()
        return message.topic, message.qos, message.retain, message.payload.decode()

    def expect_nothing_before(self, other, topic):
        """Everything that was to come has come: a message of our own is the next one."""
        other.publish(topic, "marker", 1)
        expect_equal(self.take()[3], "marker", "next message")

    def wait_closed(self):
        if not self.ended.wait(LIMIT_SECONDS):
            raise Failed("the broker did not close the connection")
        self.client.loop_stop()
        return self.reason

    def vanish(self):
        """Ends the connection without DISCONNECT."""
        self.client.on_disconnect = None
        self.client.loop_stop()
        self.client._sock_close()

    def close(self, props=None, reason=None):
        self.client.disconnect(*([reason] if reason is not None else []), **({"properties": props} if props else {}))
        self.client.loop_stop()
