"""mqtt.js, in a process of its own that runs one part of `mqttjs.cjs` and prints `ok` or what went wrong."""

import os

from harness import FEATURES, HERE, VERSIONS, Skipped, case, cells, expect, need, run

SCHEMES = {"mqtt.js over TCP": ("mqtt", "tcp"), "mqtt.js over WebSocket": ("ws", "ws")}
LEVELS = dict(zip(VERSIONS, (3, 4, 5)))


def talk(broker, client, version, part):
    folder = os.environ.get("INTEROP_NODE", "")
    if not folder:
        raise Skipped("mqtt.js is not installed")
    scheme, listener = SCHEMES[client]
    url = f"{scheme}://127.0.0.1:{broker.ports[listener]}/mqtt"
    code, output = run(need("node"), str(HERE / "mqttjs.cjs"), folder, url, str(LEVELS[version]), part)
    expect(code == 0 and "ok" in output, "\n    ".join(["mqtt.js:", *output[-15:]]))


def register(client, feature):
    def talks(broker, version):
        talk(broker, client, version, feature)

    talks.__name__ = feature
    cells(client, feature, VERSIONS)(talks)


for name in SCHEMES:
    for part in FEATURES:
        register(name, part)


@case
def properties_and_aliases(broker):
    for client in SCHEMES:
        talk(broker, client, "5", "properties")


@case
def enhanced_authentication(broker):
    for client in SCHEMES:
        talk(broker, client, "5", "enhanced")
