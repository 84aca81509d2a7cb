"""Runners side by side: everything once, in order, whatever is slow, fails or is interrupted."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from fo_onnx.contracts.batch import Batch
from fo_onnx.contracts.runner import RunOutput
from fo_onnx.control.run_control import RunControl, RunEnded, TimeUp, begin, current
from fo_onnx.errors import DataError, StoreError
from fo_onnx.runtime.workers import Failure, run_in_threads, run_inline


def batches(n, size=3, error_at=None):
    for i in range(n):
        if i == error_at:
            raise DataError("row unreadable", position=i * size)
        ids = np.arange(i * size, (i + 1) * size)
        yield Batch(ids, {"0": ids[:, None].astype(np.float32)}, None, i * size)


class Slow:
    """A runner that echoes its input, after a delay that depends on the row."""

    kind = "onnx"

    def __init__(self, delay=lambda row: 0.0, fails_at=()):
        self.delay, self.fails_at = delay, fails_at

    def run(self, inputs):
        row = int(inputs["0"][0, 0])
        if row in self.fails_at:
            raise RuntimeError(f"cannot run {row}")
        ended = threading.Event()
        with current().calling("a batch", ended.set):
            if ended.wait(self.delay(row)):
                raise RuntimeError("terminated")
        return RunOutput(np.concatenate([inputs["0"], inputs["0"]], axis=1))


def run(runners, stream, timeout_s=None):
    found = []
    with begin(timeout_s) as control:
        run_in_threads(runners, stream, lambda b, o: found.append((b.start, o.probs[0, 0])), control)
    return found


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 40])
def test_everything_comes_once_and_in_order(workers, n):
    delay = {0: 0.02, 9: 0.01}
    runners = [Slow(lambda row: delay.get(row % 12, 0)) for _ in range(workers)]
    assert run(runners, batches(n)) == [(3 * i, 3 * i) for i in range(n)]


def test_a_slow_delivery_is_never_overtaken():
    active, most, order = 0, 0, []

    def deliver(batch, _):
        nonlocal active, most
        active += 1
        most = max(most, active)
        time.sleep(0.002)
        order.append(batch.start)
        active -= 1

    run_in_threads([Slow() for _ in range(4)], batches(30), deliver, RunControl())
    assert order == [3 * i for i in range(30)]
    assert most == 1


def test_few_batches_are_read_ahead_of_a_slow_one():
    read = 0

    def counted():
        nonlocal read
        for batch in batches(100):
            read += 1
            yield batch

    stuck = threading.Event()

    class Stuck(Slow):
        def run(self, inputs):
            if inputs["0"][0, 0] == 0:
                stuck.wait(5)
            return super().run(inputs)

    thread = threading.Thread(target=run, args=([Stuck(), Stuck()], counted()))
    thread.start()
    time.sleep(0.2)
    seen = read
    stuck.set()
    thread.join(10)
    assert seen <= 2 * 2 + 2
    assert read == 100


def test_what_the_source_raises_comes_after_the_rows_before_it():
    found = []
    with pytest.raises(DataError, match="row unreadable") as caught:
        run_in_threads([Slow(), Slow()], batches(10, error_at=7), lambda b, o: found.append(b.start), RunControl())
    assert found == [3 * i for i in range(7)]
    assert caught.value.position == 21


def test_a_failing_runner_hands_back_what_was_not_delivered():
    found = []
    runners = [Slow(lambda row: 0.01 if row < 15 else 0, fails_at=(15,)) for _ in range(3)]
    stream = batches(20)
    with pytest.raises(Failure) as caught:
        run_in_threads(runners, stream, lambda b, o: found.append(b.start), RunControl())
    failure = caught.value
    assert str(failure.error) == "cannot run 15"
    assert failure.left[0].start == 15
    rest = [b.start for b in failure.left] + [b.start for b in stream]
    assert found + rest == [3 * i for i in range(20)]


def test_of_two_failures_the_first_in_order_counts():
    runners = [
        Slow(lambda row: 0.05 if row == 3 else 0, fails_at=(6,)),
        Slow(lambda row: 0.05 if row == 3 else 0, fails_at=(6,)),
    ]
    found = []
    with pytest.raises(Failure) as caught:
        run_in_threads(runners, batches(10), lambda b, o: found.append(b.start), RunControl())
    assert found == [0, 3]
    assert caught.value.left[0].start == 6


def test_a_failure_and_an_unreadable_row_are_both_reported():
    runners = [Slow(lambda row: 0.1 if row == 0 else 0, fails_at=(0,)), Slow()]

    class Late(Slow):
        def run(self, inputs):
            time.sleep(0.1)
            raise RuntimeError("late")

    runners = [Late(), Late()]
    with pytest.raises(Failure) as caught:
        run_in_threads(runners, batches(10, error_at=1), lambda b, o: None, RunControl())
    assert [b.start for b in caught.value.left] == [0]
    assert isinstance(caught.value.then, DataError)


def test_a_delivery_that_fails_ends_the_run():
    delivered = []

    def deliver(batch, _):
        if batch.start == 9:
            raise StoreError("disk full")
        delivered.append(batch.start)

    with pytest.raises(StoreError, match="disk full"):
        run_in_threads([Slow(), Slow()], batches(100), deliver, RunControl())
    assert delivered == [0, 3, 6]


def test_the_time_is_up():
    found = []
    begun = time.monotonic()
    with pytest.raises(TimeUp, match=r"the run reached its timeout_s=0\.3 s"), begin(0.3) as control:
        run_in_threads(
            [Slow(lambda row: 0.0 if row < 9 else 30)], batches(10), lambda b, o: found.append(b.start), control
        )
    assert time.monotonic() - begun < 2
    assert found == [0, 3, 6]


def test_a_runner_works_again_after_it_was_stopped():
    runner = Slow(lambda row: 30 if row == 0 else 0)
    with pytest.raises(TimeUp):
        run([runner], batches(3), 0.1)
    runner.delay = lambda row: 0.0
    assert len(run([runner], batches(3))) == 3


def test_no_thread_is_left_behind():
    before = threading.active_count()
    for _ in range(3):
        run([Slow(), Slow()], batches(5))
    deadline = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_batch_without_rows_is_not_run():
    empty = Batch(np.empty(0, np.int64), {"0": np.empty((0, 1), np.float32)}, None, 0)
    found = []
    run_in_threads([Slow(fails_at=(0,))], iter([empty]), lambda b, o: found.append(o), RunControl())
    run_inline(Slow(fails_at=(0,)), iter([empty]), lambda b, o: found.append(o), RunControl())
    assert found == [None, None]


def test_inline_failures_name_the_batch():
    with pytest.raises(Failure) as caught:
        run_inline(Slow(fails_at=(6,)), batches(4), lambda b, o: None, RunControl())
    assert [b.start for b in caught.value.left] == [6]


def test_inline_time_is_up():
    found = []
    with pytest.raises(TimeUp, match="it had to wait until a batch of 0"), begin(0.3) as control:
        run_inline(Unstoppable(), batches(40), lambda b, o: found.append(b.start), control)
    assert found == [0, 3], "what a call gives is kept, also where it was waited for"


class Unstoppable:
    """A runner whose calls cannot be cut off."""

    kind = "native"

    def __init__(self, seconds=0.25):
        self.seconds, self.calls, self.busy = seconds, 0, False

    def run(self, inputs):
        with current().calling("a batch"):
            self.calls, self.busy = self.calls + 1, True
            time.sleep(self.seconds)
            self.busy = False
        return RunOutput(np.concatenate([inputs["0"], inputs["0"]], axis=1))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_call_in_a_worker_that_cannot_be_cut_off_is_let_end_and_named(workers):
    """Nobody calls the model any more once the run has ended: its owner may go on with it, train it, say."""
    before = threading.active_count()
    runners = [Unstoppable(1.2) for _ in range(workers)]
    with pytest.raises(TimeUp, match=r"timeout_s=0\.2 s; it had to wait until a batch of 1\.\d s ended"):
        run(runners, batches(40), 0.2)
    assert {r.calls for r in runners} <= {0, 1}, "none is begun after the end"
    assert not any(r.busy for r in runners)
    deadline = time.monotonic() + 2
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_one_run_that_is_ended_leaves_another_on_the_same_runner_alone():
    """Both are in the runner at the same time; it is told of no run but by the control of each."""
    runner, rows = Slow(lambda row: 0.05), {}
    other = threading.Thread(target=lambda: rows.update(other=run([runner, runner], batches(20))))
    other.start()
    with pytest.raises(TimeUp):
        run([runner, runner], batches(20), 0.2)
    other.join(10)
    assert len(rows["other"]) == 20


def test_late_results_of_a_call_that_cannot_be_cut_off_are_not_delivered():
    go, done, found = threading.Event(), threading.Event(), []

    class Hanging(Slow):
        def run(self, inputs):
            assert go.wait(30)
            done.set()
            return super().run(inputs)

    with pytest.raises(RunEnded):
        run_in_threads([Hanging()], batches(4), lambda b, o: found.append(b.start), RunControl(0.1))
    go.set()
    assert done.wait(30)
    while any(thread.name == "fo-onnx-0" for thread in threading.enumerate()):
        time.sleep(0.01)
    assert found == []
