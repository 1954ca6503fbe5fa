"""rumqttc, in a process of its own for each feature: `rumqttc/` beside this file, which `.ci/run` builds."""

import os

from harness import FEATURES, Skipped, cells, expect_equal, run

LEVELS = {"3.1.1": "4", "5": "5"}


def register(feature):
    def talks(broker, version):
        program = os.environ.get("INTEROP_RUMQTTC", "")
        if not program:
            raise Skipped("rumqttc is not built")
        code, output = run(program, str(broker.port), LEVELS[version], feature)
        expect_equal(code, 0, "\n    ".join(["rumqttc:", *output[-15:]]))

    talks.__name__ = feature
    cells("rumqttc", feature, LEVELS)(talks)


for name in FEATURES:
    register(name)
