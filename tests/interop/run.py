#!/usr/bin/env python3
"""Tests a broker against other people's clients and brokers.

    python3 tests/interop/run.py --broker target/debug/tombolo [NAME...]

Peers: mosquitto (clients, and a broker that bridges to us), paho-mqtt, aiomqtt, mqtt.js, rumqttc, openssl. One that is not installed is
skipped. `harness.FEATURES` is what each client does in each version; what one cannot do is in GAPS, and printed as skipped.
Prints a line for each test and, at the end, `interop: N passed, N failed, N skipped`.
"""

import argparse
import importlib
import sys
import time
import traceback

import harness

MODULES = ["mosquitto_clients", "mosquitto_bridge", "paho_matrix", "paho_v3", "paho_v5", "aiomqtt_smoke", "mqttjs", "rumqttc", "openssl"]
# Cells of the matrix that cannot be: client, version, why.
GAPS = {("rumqttc", "3.1"): "rumqttc does not speak MQTT 3.1"}
LINES_OF_LOG = 20


def main():
    parser = argparse.ArgumentParser(description="Tests a broker against other people's clients and brokers.")
    parser.add_argument("--broker", required=True, metavar="PROGRAM", help="the program, such as target/debug/tombolo")
    parser.add_argument("names", nargs="*", help="parts of the names of the tests to run; all by default")
    arguments = parser.parse_args()

    passed, failed, skipped = [], [], []
    for module in MODULES:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            print(f"skip {module}: {error}", flush=True)
            skipped.append(module)

    for cell, why in gaps(skipped):
        if why is None:
            failed.append(cell)
            print(f"FAIL {cell}: nobody tests it, and nobody says why", flush=True)
        else:
            skipped.append(cell)
            print(f"skip {cell}: {why}", flush=True)

    broker = harness.Broker(arguments.broker)
    try:
        for case in harness.CASES:
            name = f"{case.__module__}.{case.__name__}"
            if arguments.names and not any(part in name for part in arguments.names):
                continue
            started, mark = time.monotonic(), broker.mark()
            try:
                case(broker)
            except harness.Skipped as why:
                skipped.append(name)
                print(f"skip {name}: {why}", flush=True)
            except Exception as error:  # whatever goes wrong in a test is its failure, not ours
                failed.append(name)
                report(name, error, broker.log_since(mark))
            else:
                passed.append(name)
                print(f"ok   {name} ({time.monotonic() - started:.1f}s)", flush=True)
            if broker.process.over:
                failed.append("the broker ended")
                print(f"FAIL the broker ended during {name}", flush=True)
                break
    finally:
        code = broker.stop()
        harness.Process.stop_all()
    if code != 0:
        failed.append("the broker's exit code")
        print(f"FAIL the broker ended with exit code {code}", flush=True)
    print(f"interop: {len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped", flush=True)
    return 1 if failed or not passed else 0


def gaps(missing):
    """The cells of the matrix without a test, and why."""
    for client in harness.CLIENTS:
        for version in harness.VERSIONS:
            for feature in harness.FEATURES:
                if (client, version, feature) in harness.CELLS:
                    continue
                why = GAPS.get((client, version))
                if client == "paho" and "paho_matrix" in missing:
                    why = "paho-mqtt is not installed"
                yield f"{feature}[{client} {version}]", why


def report(name, error, log):
    print(f"FAIL {name}: {error}", flush=True)
    if not isinstance(error, harness.Failed):
        traceback.print_exception(error)
    for line in log[-LINES_OF_LOG:]:
        print(f"     log: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
