"""mosquitto_pub and mosquitto_sub in all three versions of the protocol."""

import re

from pathlib import Path

from harness import LARGE, VERSIONS as MATRIX, Process, case, cells, expect, expect_equal, need, run

NAMES = dict(zip(MATRIX, ["mqttv31", "mqttv311", "mqttv5"]))
VERSIONS = list(NAMES.values())
FORMAT = "MESSAGE %t %q %r %p"


class Subscriber:
    """mosquitto_sub that has its SUBACK."""

    def __init__(self, broker, *filters, version="mqttv5", qos=2, count=None, options=(), where=None):
        where = where or ["-h", "127.0.0.1", "-p", str(broker.port)]
        # stdbuf: through a pipe its output would come in blocks.
        arguments = ["stdbuf", "-oL", need("mosquitto_sub"), *where, "-V", version]
        arguments += ["-q", str(qos), "-d", "-F", FORMAT, *options]
        for filter in filters:
            arguments += ["-t", filter]
        if count is not None:
            arguments += ["-C", str(count)]
        self.process = Process(*arguments)
        self.process.wait_line(r"^Subscribed|received SUBACK")

    def take(self, count):
        """Its first `count` messages, as (topic, QoS, RETAIN, payload)."""
        _, lines = self.process.wait()
        found = [tuple(line.split(" ", 4)[1:]) for line in lines if line.startswith("MESSAGE ")]
        expect_equal(len(found), count, "messages")
        return found

    def vanish(self):
        """Ends it at once: its handler of SIGTERM takes locks and may hang."""
        self.process.child.kill()
        self.process.stop()


def publish(broker, topic, payload, *options, version="mqttv5", qos=0, port=None):
    arguments = [need("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(port or broker.port), "-V", version]
    code, output = run(*arguments, "-t", topic, "-m", payload, "-q", str(qos), *options)
    expect_equal(code, 0, f"mosquitto_pub {version}: {output}")


@cells("mosquitto", "qos", MATRIX)
def every_version_is_reached_at_every_qos(broker, version):
    topic, receiving = f"mosquitto/matrix/{version}", NAMES[version]
    subscriber = Subscriber(broker, f"{topic}/+", version=receiving, count=9)
    wanted = []
    for sending in VERSIONS:
        for qos in (0, 1, 2):
            publish(broker, f"{topic}/{sending}", f"qos {qos}", version=sending, qos=qos)
            wanted.append((f"{topic}/{sending}", str(qos), "0", f"qos {qos}"))
    expect_equal(subscriber.take(9), wanted, receiving)


@case
def a_subscriber_lowers_the_qos(broker):
    for qos in (0, 1):
        topic = f"mosquitto/lower/{qos}"
        subscriber = Subscriber(broker, topic, qos=qos, count=1)
        publish(broker, topic, "x", qos=2)
        expect_equal(subscriber.take(1), [(topic, str(qos), "0", "x")], "granted QoS")


@cells("mosquitto", "retained", MATRIX)
def retained_messages_are_kept_and_removed(broker, version):
    version = NAMES[version]
    topic = f"mosquitto/retained/{version}"
    publish(broker, topic, "kept", "-r", version=version, qos=1)
    subscriber = Subscriber(broker, topic, version=version, count=1)
    expect_equal(subscriber.take(1), [(topic, "1", "1", "kept")], version)
    arguments = [need("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(broker.port), "-V", version]
    code, output = run(*arguments, "-t", topic, "-n", "-r", "-q", "1")
    expect_equal(code, 0, f"removal: {output}")
    # Nothing retained: the first message is the one published afterwards.
    subscriber = Subscriber(broker, topic, version=version, count=1)
    publish(broker, topic, "later", version=version)
    expect_equal(subscriber.take(1), [(topic, "0", "0", "later")], f"{version} after removal")


@cells("mosquitto", "will", MATRIX)
def a_will_is_published_when_a_client_vanishes(broker, version):
    version = NAMES[version]
    topic = f"mosquitto/will/{version}"
    subscriber = Subscriber(broker, topic, version=version, count=1)
    options = ["--will-topic", topic, "--will-payload", "gone", "--will-qos", "1", "-i", f"will-{version}"]
    vanishing = Subscriber(broker, "mosquitto/will/nothing", version=version, options=options)
    vanishing.vanish()
    expect_equal(subscriber.take(1), [(topic, "1", "0", "gone")], version)


@cells("mosquitto", "shared", MATRIX)
def a_shared_subscription_gives_each_message_to_one_member(broker, version):
    version = NAMES[version]
    topic = f"mosquitto/shared/{version}"
    members = [Subscriber(broker, f"$share/group/{topic}", version=version, count=5) for _ in range(2)]
    run(*[need("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(broker.port), "-V", version, "-t", topic, "-q", "1",
          "-l"], stdin="".join(f"{number}\n" for number in range(10)))
    payloads = [message[3] for member in members for message in member.take(5)]
    expect_equal(sorted(payloads), sorted(str(number) for number in range(10)), version)


@cells("mosquitto", "large", MATRIX)
def a_large_payload_arrives_whole(broker, version):
    topic = f"mosquitto/large/{version}"
    file = Path(broker.dir, "large")
    file.write_bytes(b"x" * LARGE)
    subscriber = Process("stdbuf", "-oL", need("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(broker.port), "-V",
                         NAMES[version], "-q", "2", "-d", "-t", topic, "-C", "3", "-F", "MESSAGE %q %l")
    subscriber.wait_line(r"^Subscribed|received SUBACK")
    for qos in ("0", "1", "2"):
        code, output = run(need("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(broker.port), "-V", NAMES[version], "-t",
                           topic, "-q", qos, "-f", str(file))
        expect_equal(code, 0, f"mosquitto_pub: {output}")
    _, lines = subscriber.wait()
    found = [line.split(" ")[1:] for line in lines if line.startswith("MESSAGE ")]
    expect_equal(found, [[qos, str(LARGE)] for qos in ("0", "1", "2")], "QoS and length")


@case
def many_messages_come_in_order(broker):
    topic = "mosquitto/order"
    for qos in (1, 2):
        subscriber = Subscriber(broker, topic, qos=qos, count=1000)
        code, output = run(need("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(broker.port), "-V", "mqttv5", "-t", topic,
                           "-q", str(qos), "-l", stdin="".join(f"{number}\n" for number in range(1000)))
        expect_equal(code, 0, f"mosquitto_pub -l: {output[:5]}")
        payloads = [message[3] for message in subscriber.take(1000)]
        expect_equal(payloads, [str(number) for number in range(1000)], f"order at QoS {qos}")


@cells("mosquitto", "session", MATRIX)
def a_session_without_clean_start_gets_what_it_missed(broker, version):
    resume = ["-c", "-x", "600"] if version == "5" else ["-c"]
    version = NAMES[version]
    topic = f"mosquitto/missed/{version}"
    options = ["-i", f"missed-{version}", *resume]
    Subscriber(broker, topic, version=version, options=options).vanish()
    for qos in (1, 2):
        publish(broker, topic, f"missed {qos}", version=version, qos=qos)
    again = Subscriber(broker, topic, version=version, count=2, options=options)
    expect_equal([message[3] for message in again.take(2)], ["missed 1", "missed 2"], version)


@case
def properties_reach_the_subscriber(broker):
    topic = "mosquitto/properties"
    subscriber = Process("stdbuf", "-oL", need("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(broker.port), "-V", "mqttv5",
                         "-t", topic, "-d", "-C", "1", "-F", "MESSAGE %C|%R|%D|%P|%E|%F|%p")
    subscriber.wait_line(r"^Subscribed")
    publish(broker, topic, "x", "-D", "publish", "content-type", "text/plain", "-D", "publish", "response-topic", "re/ply",
            "-D", "publish", "correlation-data", "c0", "-D", "publish", "user-property", "name", "value",
            "-D", "publish", "message-expiry-interval", "100", "-D", "publish", "payload-format-indicator", "1", qos=1)
    _, lines = subscriber.wait()
    found = next((line for line in lines if line.startswith("MESSAGE ")), "")
    fields = found.removeprefix("MESSAGE ").split("|")
    expect_equal(fields[:3], ["text/plain", "re/ply", "c0"], "Content Type, Response Topic, Correlation Data")
    expect("name:value" in fields[3], f"User Property: {found}")
    expect(re.fullmatch(r"99|100", fields[4]) is not None, f"Message Expiry Interval: {found}")
    expect_equal(fields[5:], ["1", "x"], "Payload Format Indicator and payload")


@case
def a_password_is_checked(broker):
    arguments = [need("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(broker.port), "-t", "mosquitto/password", "-m", "x"]
    for version, wrong in [("mqttv31", 4), ("mqttv311", 4), ("mqttv5", 134)]:
        code, output = run(*arguments, "-V", version, "-u", "alice", "-P", "secret")
        expect_equal(code, 0, f"{version}, right password: {output}")
        code, output = run(*arguments, "-V", version, "-u", "alice", "-P", "wrong")
        expect(code != 0, f"{version}, wrong password: {output}")
        expect("authori" in " ".join(output).lower() or "password" in " ".join(output).lower(), f"{version}: {output}")


@case
def tls_works_and_a_foreign_authority_is_refused(broker):
    topic = "mosquitto/tls"
    subscriber = Subscriber(broker, topic, count=1)
    publish(broker, topic, "x", "--cafile", broker.certificate, port=broker.ports["ssl"], qos=1)
    expect_equal(subscriber.take(1), [(topic, "1", "0", "x")], "over TLS")
    code, _ = run(need("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(broker.ports["ssl"]), "-t", topic, "-m", "x",
                  "--tls-use-os-certs")
    expect(code != 0, "a certificate of nobody's was taken")


@case
def a_unix_socket_serves_every_version(broker):
    for version in VERSIONS:
        topic = f"mosquitto/unix/{version}"
        subscriber = Subscriber(broker, topic, version=version, count=2, where=["--unix", broker.socket])
        publish(broker, topic, "over the port", version=version, qos=1)
        code, output = run(need("mosquitto_pub"), "--unix", broker.socket, "-V", version, "-t", topic, "-q", "2", "-m",
                           "over the socket")
        expect_equal(code, 0, f"mosquitto_pub --unix {version}: {output}")
        expect_equal([message[3] for message in subscriber.take(2)], ["over the port", "over the socket"], version)


@case
def system_topics_are_denied(broker):
    """The shipped ACL: nobody publishes under $SYS/."""
    mark = broker.mark()
    arguments = [need("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(broker.port), "-V", "mqttv5", "-q", "1", "-d"]
    _, output = run(*arguments, "-t", "$SYS/broker/x", "-m", "x")
    expect("RC:135" in " ".join(output) or "not authorized" in " ".join(output).lower(), f"no 0x87: {output}")
    broker.process.wait_line("not authorized", mark)
