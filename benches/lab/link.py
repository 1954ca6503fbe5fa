#!/usr/bin/env python3
"""Measures two linked brokers, and mosquitto's bridge beside them, with the `bridge` load of mqload.

  python3 benches/lab/link.py --mqload PATH/mqload [--tombolo target/release/tombolo] [--rounds 3] [--qos 0,1]

Each round starts fresh brokers on free loopback ports, drives 10 publishers at A and one subscriber at B for
about a second in a closed loop, and prints the CPU of both brokers together per delivered message. Links are
plaintext on loopback for both, to compare like with like. Only processes started here are ended, by their pid.
"""
import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TOMBOLO = """
[cluster]
name = "{name}"
node = "tombolo@{name}"
[data]
dir = "{dir}/data-{name}"
[[listeners]]
name = "default"
type = "tcp"
bind = "127.0.0.1:{mqtt}"
[[listeners]]
name = "links"
type = "tcp"
bind = "127.0.0.1:{link}"
role = "link"
allow_insecure = true
[mqtt]
max_inflight = 1000
max_mqueue_len = 1000000
[authentication]
allow_anonymous = true
[authorization]
file = "{dir}/acl.conf"
[[cluster.links]]
name = "{peer}"
server = "127.0.0.1:{there}"
clientid = "clink-{name}-"
topics = ["lab/#"]
pool_size = 4
max_inflight = 1000
[cluster.links.peer]
clientid = "clink-{peer}-"
allow_unauthenticated = true
[cluster.links.ssl]
enable = false
[http]
bind = "127.0.0.1:{http}"
[log]
level = "error"
"""

MOSQUITTO = """
user root
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_dest none
sys_interval 0
set_tcp_nodelay true
max_inflight_messages 1000
max_queued_messages 0
{bridge}
"""

BRIDGE = """connection lab
address 127.0.0.1:{port}
topic lab/# out 2
cleansession true
notifications false
try_private false
"""


def ports(count):
    held = [socket.socket() for _ in range(count)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    found = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return found


def wait_for(port):
    for _ in range(200):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    sys.exit(f"nothing listens on port {port}")


def start(command, folder, name):
    log = open(os.path.join(folder, name + ".log"), "wb")
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def write(path, text):
    with open(path, "w") as f:
        f.write(text)
    return path


def tombolo(binary, folder):
    a_mqtt, a_link, a_http, b_mqtt, b_link, b_http = ports(6)
    write(os.path.join(folder, "acl.conf"), "{allow, all}.\n")
    sides = [("A", "B", a_mqtt, a_link, a_http, b_link), ("B", "A", b_mqtt, b_link, b_http, a_link)]
    children = []
    for name, peer, mqtt, link, http, there in sides:
        text = TOMBOLO.format(name=name, peer=peer, mqtt=mqtt, link=link, http=http, there=there, dir=folder)
        path = write(os.path.join(folder, name + ".toml"), text)
        children.append(start([binary, "serve", "--config", path], folder, name))
    return children, a_mqtt, b_mqtt


def mosquitto(binary, folder):
    a, b = ports(2)
    far = write(os.path.join(folder, "b.conf"), MOSQUITTO.format(port=b, bridge=""))
    near = write(os.path.join(folder, "a.conf"), MOSQUITTO.format(port=a, bridge=BRIDGE.format(port=b)))
    children = [start([binary, "-c", far], folder, "b")]
    wait_for(b)
    children.append(start([binary, "-c", near], folder, "a"))
    return list(reversed(children)), a, b


def one(maker, binary, mqload, qos):
    folder = tempfile.mkdtemp(prefix="link-lab-")
    children = []
    try:
        children, a, b = maker(binary, folder)
        wait_for(a)
        wait_for(b)
        window = 50 if qos == 0 else 20
        load = f"bridge warm=1 pubs=10 qos={qos} size=64 window={window} msgs=50000000 max_s=1".split()
        load += [f"addr=127.0.0.1:{a}", f"sub_addr=127.0.0.1:{b}", "pid=" + ",".join(str(c.pid) for c in children)]
        done = subprocess.run([mqload, *load], capture_output=True, text=True, timeout=120)
        lines = done.stdout.strip().splitlines()
        if done.returncode or not lines:
            sys.exit(f"mqload failed: {done.stderr or done.stdout}")
        return json.loads(lines[-1])
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            try:
                child.wait(12)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mqload", required=True)
    parser.add_argument("--tombolo", default="target/release/tombolo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--qos", default="0,1")
    args = parser.parse_args()
    peers = {"tombolo": (tombolo, args.tombolo)}
    if shutil.which("mosquitto"):
        peers["mosquitto"] = (mosquitto, shutil.which("mosquitto"))
    print("| QoS | broker | CPU us/msg, both brokers | msg/s | p50 us | lost |\n|---|---|---|---|---|---|")
    for qos in map(int, args.qos.split(",")):
        runs = {name: [] for name in peers}
        for _ in range(args.rounds):
            for name, (maker, binary) in peers.items():
                runs[name].append(one(maker, binary, args.mqload, qos))
        for name, results in runs.items():
            middle = lambda key: statistics.median(r.get(key) or 0 for r in results)
            rate = middle("msg_per_s") or middle("rate")
            print(f"| {qos} | {name} | {middle('cpu_us_per_msg'):.2f} | {rate:,.0f} | {middle('p50_us'):.0f} | {middle('lost'):.0f} |")


if __name__ == "__main__":
    main()
