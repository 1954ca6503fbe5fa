"""mqtt.js, in a process of its own that runs `mqttjs.cjs` and prints `ok` or what went wrong."""

import os

from harness import HERE, Skipped, case, expect, need, run


def talk(broker, scheme, port, version):
    folder = os.environ.get("INTEROP_NODE", "")
    if not folder:
        raise Skipped("mqtt.js is not installed")
    code, output = run(need("node"), str(HERE / "mqttjs.cjs"), folder, f"{scheme}://127.0.0.1:{port}/mqtt", str(version))
    expect(code == 0 and "ok" in output, "\n    ".join(["mqtt.js:", *output[-15:]]))


@case
def over_tcp_311(broker):
    talk(broker, "mqtt", broker.ports["tcp"], 4)


@case
def over_tcp_5(broker):
    talk(broker, "mqtt", broker.ports["tcp"], 5)


@case
def over_websocket_311(broker):
    talk(broker, "ws", broker.ports["ws"], 4)


@case
def over_websocket_5(broker):
    talk(broker, "ws", broker.ports["ws"], 5)
