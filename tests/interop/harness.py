"""What every interoperability test uses: processes that end with the run, a broker, waiting for conditions.

Nothing sleeps for a fixed time: tests wait for a line of output, a message or a closed process, with a limit.
"""

import json
import os
import queue
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

LIMIT_SECONDS = 20
HERE = Path(__file__).resolve().parent
CASES = []


class Failed(Exception):
    """A peer and the broker do not understand each other."""


class Skipped(Exception):
    """The peer is not installed."""


def case(function):
    """Registers a test. Its first line of documentation is what it claims."""
    CASES.append(function)
    return function


# What each client is to do in each version that it speaks.
FEATURES = ["qos", "retained", "will", "shared", "session", "large"]
VERSIONS = ["3.1", "3.1.1", "5"]
CLIENTS = ["mosquitto", "paho", "mqtt.js over TCP", "mqtt.js over WebSocket", "rumqttc"]
# Close below the broker's default `mqtt.max_packet_size`, which is 1 MiB.
LARGE = 1024 * 1024 - 256
CELLS = {}


def cells(client, feature, versions):
    """Registers a test of one feature for each version: `function(broker, version)`."""

    def register(function):
        for version in versions:
            def cell(broker, version=version):
                function(broker, version)

            cell.__module__, cell.__name__ = function.__module__, f"{function.__name__}[{client} {version}]"
            CELLS[client, version, feature] = cell
            CASES.append(cell)
        return function

    return register


def expect(condition, message):
    if not condition:
        raise Failed(message)


def expect_equal(found, wanted, what):
    if found != wanted:
        raise Failed(f"{what}: got {found!r}, wanted {wanted!r}")


def need(program):
    path = shutil.which(program)
    if path is None:
        raise Skipped(f"{program} is not installed")
    return path


def free_port():
    """A port that was free a moment ago, for programs that cannot say which one they got."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A program whose output is read line by line."""

    running = []

    def __init__(self, *arguments, stdin=None):
        self.name = Path(arguments[0]).name
        self.lines = []
        self.changed = threading.Condition()
        self.over = False
        self.child = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        Process.running.append(self)
        threading.Thread(target=self._read, daemon=True).start()
        if stdin is not None:
            self.child.stdin.write(stdin)
            self.child.stdin.close()

    def _read(self):
        for line in self.child.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def wait_line(self, pattern, start=0, limit=LIMIT_SECONDS):
        """The match of the first line since `start` that `pattern` is found in."""
        found = None

        def look():
            nonlocal found
            found = next((match for line in self.lines[start:] if (match := re.search(pattern, line))), None)
            return found is not None or self.over

        with self.changed:
            self.changed.wait_for(look, limit)
        if found is None:
            raise Failed(f"{self.name}: no line like {pattern!r} in:\n    " + "\n    ".join(self.lines[-15:]))
        return found

    def wait(self, limit=LIMIT_SECONDS):
        """Waits for its end; gives its exit code and output."""
        try:
            code = self.child.wait(limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} does not end; it said:\n    " + "\n    ".join(self.lines[-15:])) from None
        with self.changed:
            self.changed.wait_for(lambda: self.over, limit)
        return code, list(self.lines)

    def stop(self):
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(12)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        if self in Process.running:
            Process.running.remove(self)

    @staticmethod
    def stop_all():
        for process in list(Process.running):
            process.stop()


def run(*arguments, stdin=None):
    """Runs a program to its end."""
    process = Process(*arguments, stdin=stdin)
    try:
        return process.wait()
    finally:
        process.stop()


CONFIG = """
[cluster]
name = "interop"
[data]
dir = "{dir}/data"
[[listeners]]
name = "default"
type = "tcp"
bind = "127.0.0.1:0"
[[listeners]]
name = "default"
type = "ws"
bind = "127.0.0.1:0"
[[listeners]]
name = "default"
type = "ssl"
bind = "127.0.0.1:0"
[listeners.ssl]
certfile = "{dir}/server.pem"
keyfile = "{dir}/server.key"
[[listeners]]
name = "default"
type = "unix"
bind = "{dir}/mqtt.sock"
[authentication]
allow_anonymous = true
password_file = "{dir}/passwd"
[[authentication.chain]]
mechanism = "scram"
password_file = "{dir}/scram"
[http]
bind = "127.0.0.1:0"
[log]
level = "info,tombolo=debug"
format = "json"
"""


class Broker:
    """A broker of ours on free ports, with all listeners, a user `alice` with password `secret`, a SCRAM user, and a certificate."""

    def __init__(self, binary):
        self.dir = tempfile.mkdtemp(prefix="tombolo-interop-")
        self.binary = binary
        self.certificate = f"{self.dir}/server.pem"
        make_certificate(self.dir)
        code, output = run(binary, "passwd", f"{self.dir}/passwd", "alice", "--stdin", stdin="secret\n")
        expect_equal(code, 0, f"tombolo passwd: {output}")
        arguments = [f"{self.dir}/scram", "scram-user", "--stdin", "--hash", "scram-sha-256"]
        code, output = run(binary, "passwd", *arguments, stdin="scram-password\n")
        expect_equal(code, 0, f"tombolo passwd --hash scram-sha-256: {output}")
        config = Path(self.dir, "tombolo.toml")
        config.write_text(CONFIG.format(dir=self.dir), encoding="utf-8")
        self.process = Process(binary, "serve", "--config", str(config))
        self.process.wait_line(r'"message":"ready"')
        self.ports = {}
        for line in self.process.lines:
            fields = json.loads(line)
            if fields.get("message") == "listening":
                kind, address = fields["listener"].split(":")[0], fields["address"]
                if kind == "unix":
                    self.socket = address
                else:
                    self.ports[kind] = int(address.rsplit(":", 1)[1])
            elif fields.get("message") == "HTTP listening":
                self.http = int(fields["address"].rsplit(":", 1)[1])

    @property
    def port(self):
        return self.ports["tcp"]

    def mark(self):
        """How much has been logged so far."""
        return len(self.process.lines)

    def log_since(self, mark):
        return self.process.lines[mark:]

    def stop(self):
        """Ends it as an operator does; gives its exit code."""
        self.process.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
        return self.process.child.returncode


def make_certificate(folder):
    code, output = run(
        need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", f"{folder}/server.key", "-out", f"{folder}/server.pem",
    )
    expect_equal(code, 0, f"openssl: {output}")
    os.chmod(f"{folder}/server.key", 0o600)


class Inbox:
    """Messages as they come, to be waited for."""

    def __init__(self):
        self.messages = queue.Queue()

    def put(self, message):
        self.messages.put(message)

    def take(self, limit=LIMIT_SECONDS):
        try:
            return self.messages.get(timeout=limit)
        except queue.Empty:
            raise Failed("a message that should have come did not") from None

    def take_all(self, count):
        return [self.take() for _ in range(count)]

    def is_empty(self):
        return self.messages.empty()


def until(condition, what, limit=LIMIT_SECONDS):
    """Waits for something that nobody announces."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not happen")
        time.sleep(0.01)
