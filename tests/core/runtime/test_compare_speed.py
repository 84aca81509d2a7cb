"""Two sets of runners, timed in turns."""

from __future__ import annotations

import numpy as np
import pytest

from fo_onnx.contracts.runner import RunOutput
from fo_onnx.control.run_control import begin
from fo_onnx.errors import RunError
from fo_onnx.runtime import compare_speed as module
from fo_onnx.runtime.compare_speed import compare_speed, is_faster


@pytest.mark.parametrize(
    ("ratios", "faster"),
    [
        ([1.5, 1.4, 1.6, 1.5, 1.5], True),
        ([1.06, 1.06, 1.06, 1.06, 0.9], True),  # one turn may be disturbed
        ([1.5, 1.5, 1.5, 0.9, 0.9], False),
        ([1.04, 1.04, 1.04, 1.04, 1.04], False),
        ([0.5, 0.5, 0.5, 0.5, 0.5], False),
    ],
)
def test_what_is_faster_is_beyond_noise(ratios, faster):
    assert is_faster(ratios) is faster


class Counting:
    """A runner that says when it runs."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def run(self, inputs):
        self.log.append(self.name)
        return RunOutput(np.full((len(inputs["0"]), 2), 0.5, np.float32))


def test_both_run_the_same_batches_in_turns(monkeypatch):
    monkeypatch.setattr(module, "TURN_S", 0.0)
    monkeypatch.setattr(module, "REST_S", 0.0)
    log = []
    with begin(None):
        ratios = compare_speed([Counting("a", log)], [Counting("b", log)], [{"0": np.zeros((4, 1))}])
    assert len(ratios) == module.TURNS
    assert all(ratio > 0 for ratio in ratios)
    assert "".join(log) == "bbaaaa" + "aabb" * module.TURNS


def test_a_runner_that_fails_says_so():
    class Failing(Counting):
        def run(self, inputs):
            raise RunError("out of memory")

    with begin(None), pytest.raises(RunError, match="out of memory"):
        compare_speed([Counting("a", [])], [Failing("b", [])], [{"0": np.zeros((4, 1))}])
