"""The same job in fresh processes, with the export and the plan cached: cut the same way, and equal in every bit."""

from __future__ import annotations

import json
from typing import Any

from fresh_python import run_python

PROGRAM = """
import hashlib, json
import numpy as np
from sklearn.neural_network import MLPClassifier
import fo_onnx as fo
from fo_onnx.runtime import measured_plan, plan_search

# Every run is long enough to be measured, on this machine's own clock; what is faster at all is chosen.
measured_plan.LEAST_RUN_S = plan_search.LEAST_RUN_S = 0.0
plan_search.MARGIN = plan_search.HASTY_MARGIN = 1.0
x = np.random.default_rng(0).standard_normal((3000, 20)).astype(np.float32)
net = MLPClassifier((300,), max_iter=3, random_state=0).fit(x[:500], (x[:500, 0] > 0).astype(int) + (x[:500, 1] > 0))
result = fo.generate(net, x, runner="onnx")
engine = result.meta["engine"]
print(json.dumps([engine["export"], engine["tuning"], hashlib.sha256(result.probs.tobytes()).hexdigest()]))
"""


def test_three_fresh_processes() -> None:
    runs: list[tuple[str, dict[str, Any], str]] = [json.loads(run_python(PROGRAM)) for _ in range(3)]
    exports, tunings, digests = zip(*runs, strict=True)
    assert exports == ("new", "cached", "cached")
    assert [tuning["chosen"] for tuning in tunings] == ["measured", "as recorded", "as recorded"]
    assert len({json.dumps(tuning | {"chosen": ""}) for tuning in tunings}) == 1
    assert len(set(digests)) == 1
