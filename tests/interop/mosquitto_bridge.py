"""A mosquitto broker that bridges to us."""

import tempfile
from pathlib import Path

from harness import Process, case, expect_equal, free_port, need, run

CONFIG = """
listener {own} 127.0.0.1
allow_anonymous true
persistence false
log_type all
connection tombolo
address 127.0.0.1:{port}
bridge_protocol_version {version}
try_private {private}
notifications {notifications}
remote_clientid bridge-{name}
cleansession true
topic # out 1 out/{name}/ bridged/{name}/
topic # in 2 in/{name}/ to-bridge/{name}/
topic # both 1 both/{name}/ shared/{name}/
"""


class Side:
    """A subscriber on one broker."""

    def __init__(self, port, filter, count):
        self.process = Process("stdbuf", "-oL", need("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(port), "-q", "2", "-d",
                               "-t", filter, "-C", str(count), "-F", "MESSAGE %t %q %r %p")
        self.process.wait_line(r"^Subscribed")

    def take(self):
        _, lines = self.process.wait()
        return [tuple(line.split(" ", 4)[1:]) for line in lines if line.startswith("MESSAGE ")]


def publish(port, topic, payload, qos, *options):
    code, output = run(need("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(port), "-t", topic, "-m", payload, "-q", str(qos),
                       *options)
    expect_equal(code, 0, f"mosquitto_pub: {output}")


def bridge(broker, name, version, private, notifications="false"):
    own = free_port()
    folder = tempfile.mkdtemp(dir=broker.dir)
    config = Path(folder, "mosquitto.conf")
    config.write_text(CONFIG.format(own=own, port=broker.port, version=version, private=private, name=name,
                                    notifications=notifications), encoding="utf-8")
    config.chmod(0o644)
    process = Process(need("mosquitto"), "-v", "-c", str(config))
    # One SUBACK for each filter it subscribes to here: in and both.
    process.wait_line(r"Received SUBACK")
    process.wait_line(r"Received SUBACK", 1 + next(
        index for index, line in enumerate(process.lines) if "Received SUBACK" in line))
    return process, own


def exchange(broker, own, name):
    ours = Side(broker.port, f"bridged/{name}/#", 2)
    publish(own, f"out/{name}/a", "zero", 0)
    publish(own, f"out/{name}/b", "one", 1)
    expect_equal(ours.take(), [(f"bridged/{name}/a", "0", "0", "zero"), (f"bridged/{name}/b", "1", "0", "one")], "outward")

    theirs = Side(own, f"in/{name}/#", 3)
    for qos, word in enumerate(["zero", "one", "two"]):
        publish(broker.port, f"to-bridge/{name}/{word}", word, qos)
    wanted = [(f"in/{name}/{word}", str(qos), "0", word) for qos, word in enumerate(["zero", "one", "two"])]
    expect_equal(theirs.take(), wanted, "inward")

    # Both ways on one topic: what we send it must not come back for ever.
    theirs = Side(own, f"both/{name}/#", 2)
    publish(broker.port, f"shared/{name}/x", "from us", 1)
    publish(broker.port, f"shared/{name}/x", "again", 1)
    expect_equal([message[3] for message in theirs.take()], ["from us", "again"], "both ways")


@case
def a_bridge_with_311(broker):
    """try_private false: plain MQTT 3.1.1."""
    process, own = bridge(broker, "plain311", "mqttv311", "false")
    exchange(broker, own, "plain311")
    process.stop()


@case
def a_bridge_with_311_that_tries_to_say_it_is_one(broker):
    """try_private true: protocol level 0x84 in CONNECT, which is mosquitto's own and may be refused, not misread."""
    process, own = bridge(broker, "private311", "mqttv311", "true")
    exchange(broker, own, "private311")
    process.stop()


@case
def a_bridge_with_31_that_tries_to_say_it_is_one(broker):
    """The same with protocol level 0x83."""
    process, own = bridge(broker, "private31", "mqttv31", "true")
    exchange(broker, own, "private31")
    process.stop()


@case
def a_bridge_with_5(broker):
    process, own = bridge(broker, "five", "mqttv50", "false")
    exchange(broker, own, "five")
    process.stop()


@case
def a_bridge_whose_notifications_are_denied_still_works(broker):
    """It publishes its state under $SYS/ and has a Will there, which the shipped ACL forbids."""
    process, own = bridge(broker, "notify", "mqttv311", "true", notifications="true")
    exchange(broker, own, "notify")
    process.stop()


@case
def a_retained_message_crosses_a_bridge(broker):
    publish(broker.port, "to-bridge/kept/state", "on", 1, "-r")
    process, own = bridge(broker, "kept", "mqttv50", "false")
    # Whoever subscribes there later gets it: the bridge keeps RETAIN.
    theirs = Side(own, "in/kept/#", 1)
    expect_equal([message[3] for message in theirs.take()], ["on"], "retained")
    process.stop()


def no_echo(broker, name, version, private):
    """What a bridge sends to a topic that goes both ways does not come back to it."""
    process, own = bridge(broker, name, version, private)
    ours, theirs = Side(broker.port, f"shared/{name}/#", 2), Side(own, f"both/{name}/#", 2)
    publish(own, f"both/{name}/x", "first", 1)
    publish(own, f"both/{name}/x", "second", 1)
    expect_equal([message[3] for message in ours.take()], ["first", "second"], "at our side")
    expect_equal([message[3] for message in theirs.take()], ["first", "second"], "at the bridge's side")
    process.stop()


@case
def a_bridge_gets_no_echo_by_no_local(broker):
    no_echo(broker, "echo5", "mqttv50", "false")


@case
def a_bridge_gets_no_echo_by_its_protocol_level(broker):
    no_echo(broker, "echo311", "mqttv311", "true")
    no_echo(broker, "echo31", "mqttv31", "true")
