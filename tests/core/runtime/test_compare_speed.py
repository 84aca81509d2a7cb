"""Two ways to run rows, timed in turns."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

from fo_onnx.contracts.runner import RunOutput
from fo_onnx.control.run_control import begin
from fo_onnx.errors import RunError
from fo_onnx.runtime import compare_speed as module
from fo_onnx.runtime.compare_speed import SpeedComparison, Workload, compare_speed, iter_turns


def comparison(*ratios):
    return SpeedComparison(tuple((1000.0, 1000.0 * ratio) for ratio in ratios))


@pytest.mark.parametrize(
    ("ratios", "faster"),
    [
        ([1.5, 1.4, 1.6, 1.5, 1.5], True),
        ([1.06, 1.06, 1.06, 1.06, 0.9], True),  # one turn of five may be disturbed
        ([1.5, 1.5, 1.5, 0.9, 0.9], False),
        ([1.5, 1.5, 0.9], False),
        ([1.04, 1.04, 1.04, 1.04, 1.04], False),
        ([0.5, 0.5, 0.5, 0.5, 0.5], False),
        ([1.1], True),
    ],
)
def test_what_is_faster_is_beyond_noise(ratios, faster):
    assert comparison(*ratios).is_faster() is faster


def test_another_margin():
    assert comparison(*[1.04] * 5).is_faster(1.03)


class Counting:
    """A runner that logs its runs, each of which takes a time of its own."""

    kind = "onnx"

    def __init__(self, name="", log=None, seconds=0.0, clock=None):
        self.name, self.log, self.seconds, self.clock = name, [] if log is None else log, seconds, clock

    def run(self, inputs):
        self.log.append(self.name)
        if self.clock is not None:
            self.clock.sleep(self.seconds)
        return RunOutput(np.full((len(inputs["0"]), 2), 0.5, np.float32))


class Clock:
    """Time that passes only where somebody says so; runners in several threads may."""

    def __init__(self):
        self.now, self.lock = 0.0, threading.Lock()

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        with self.lock:
            self.now += seconds


def batch(rows):
    return {"0": np.zeros((rows, 1))}


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def compare(clock, first_s, second_s, budget_s=60.0, rows=100):
    first, second = (Workload([Counting(seconds=s, clock=clock)], [batch(rows)]) for s in (first_s, second_s))
    with begin(None):
        return compare_speed(first, second, budget_s)


def test_each_gets_its_own_batches_in_turns(monkeypatch, clock):
    monkeypatch.setattr(module, "CLEAR", 100.0)
    log = []
    first = Workload([Counting("a", log, 0.1, clock)], [batch(4)])
    second = Workload([Counting("b", log, 0.05, clock), Counting("b", log, 0.05, clock)], [batch(8)])
    with begin(None):
        speed = compare_speed(first, second)
    # Each runs twice to warm up and to say how many batches make a turn.
    assert "".join(log) == "aa" + "bbbb" + "abb" * module.MOST_TURNS
    assert speed.ratios == pytest.approx([4.0] * module.MOST_TURNS)
    assert speed.rates[0] == pytest.approx((40.0, 160.0))


def test_two_clear_turns_are_enough(clock):
    assert compare(clock, 1.0, 2.0).ratios == pytest.approx([0.5] * 2)
    assert compare(clock, 2.0, 1.0).ratios == pytest.approx([2.0] * 2)
    assert len(compare(clock, 1.0, 1.02).rates) == module.MOST_TURNS


def test_turns_end_with_the_budget_but_there_is_one(clock):
    # 8 s to prepare, and 4.1 s a turn: a third would end after 20 s.
    assert len(compare(clock, 2.0, 2.05, budget_s=20.0).rates) == 2
    assert len(compare(clock, 20.0, 20.0, budget_s=2.0).rates) == 1


def test_turns_go_on_without_end_each_way_after_a_rest():
    order = []
    turns = iter_turns([lambda: order.append("a"), lambda: order.append("b")])
    assert [len(seconds) for seconds in itertools.islice(turns, 3)] == [2, 2, 2]
    assert "".join(order) == "ababab"


def test_a_runner_that_fails_says_so():
    class Failing(Counting):
        def run(self, inputs):
            raise RunError("out of memory")

    with begin(None), pytest.raises(RunError, match="out of memory"):
        compare_speed(Workload([Counting()], [batch(4)]), Workload([Failing()], [batch(4)]))


def test_a_native_runner_runs_in_the_calling_thread(clock):
    class Native(Counting):
        kind = "native"

        def run(self, inputs):
            self.log.append(threading.current_thread())
            return super().run(inputs)

    native = Native(seconds=1.0, clock=clock)
    with begin(None):
        compare_speed(Workload([native], [batch(4)]), Workload([Counting(seconds=2.0, clock=clock)], [batch(4)]))
    assert {entry for entry in native.log if entry != ""} == {threading.main_thread()}
