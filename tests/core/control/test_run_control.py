"""One end for each run: by its deadline, by whoever stops it, and never another's."""

from __future__ import annotations

import threading
import time

import pytest

import fo_onnx as fo
from fo_onnx.control.run_control import RunControl, RunEnded, TimeUp, begin, current


def test_outside_of_a_run_nothing_ends() -> None:
    current().check()
    assert current().left_s() is None


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), "3", True])
def test_a_timeout_that_is_no_number_of_seconds(timeout_s: object) -> None:
    with pytest.raises(fo.OptionError, match="seconds above 0 were expected"), begin(timeout_s):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("timeout_s", [1e12, float("inf")])
def test_a_timeout_that_no_clock_holds(timeout_s: float) -> None:
    with begin(timeout_s) as control:
        control.check()
        assert control.bounded(lambda: 3, "while reading") == 3


def test_what_is_over_is_an_error_for_the_caller_alone() -> None:
    """On the way up nobody takes it for a failure of the model."""
    with (
        pytest.raises(fo.RunError, match=r"^the run reached its timeout_s=0\.05 s while a row was read\.$"),
        begin(0.05),
    ):
        time.sleep(0.06)
        try:
            current().check("while a row was read")
        except Exception:
            pytest.fail("taken for a failure")


def test_a_call_is_cut_off_at_the_deadline() -> None:
    ended = threading.Event()
    begun = time.monotonic()
    with pytest.raises(TimeUp), begin(0.1) as control:
        with control.calling("a batch", ended.set):
            assert ended.wait(10)
        control.check()
    assert time.monotonic() - begun < 5


def test_a_call_that_cannot_be_cut_off_is_named() -> None:
    kept = []
    with pytest.raises(TimeUp, match=r"it had to wait until the export of 0\.[3-9] s ended\.$"), begin(0.05) as control:
        with control.calling("the export"):
            time.sleep(0.3)
        kept.append("what it gave")
        control.check()
    assert kept


def test_a_call_is_not_begun_after_the_end() -> None:
    with pytest.raises(TimeUp, match="before the export"), begin(0.01) as control:
        time.sleep(0.02)
        with control.calling("the export"):
            pytest.fail("begun")


def test_an_error_after_the_deadline_is_not_taken_for_the_reason() -> None:
    with pytest.raises(TimeUp) as caught, begin(0.02) as control, control.calling("the export"):
        time.sleep(0.05)
        raise ValueError("half an export")
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_before_the_deadline_stays_as_it_is() -> None:
    with pytest.raises(ValueError, match="no"), begin(30) as control, control.calling("the export"):
        raise ValueError("no")


def test_within_another_one_the_earlier_deadline_counts() -> None:
    with pytest.raises(TimeUp, match=r"timeout_s=0\.05 s"), begin(0.05), begin(60), begin(None) as inner:
        time.sleep(0.06)
        inner.check()
    with pytest.raises(TimeUp, match=r"timeout_s=0\.05 s"), begin(60), begin(0.05) as inner:
        time.sleep(0.06)
        inner.check()


def test_the_end_of_an_inner_one_is_not_that_of_the_outer() -> None:
    with begin(60) as outer:
        with begin(None):
            pass
        outer.check()
        with pytest.raises(TimeUp), begin(0.01) as inner:
            time.sleep(0.02)
            inner.check()
        outer.check()


def test_reading_that_hangs_is_left_behind_and_ends_with_its_row() -> None:
    go, read = threading.Event(), []

    def rows() -> None:
        for row in range(100):
            current().check()
            go.wait(10)
            read.append(row)

    with pytest.raises(TimeUp, match="while rows were read"), begin(0.1) as control:
        control.bounded(rows, "while rows were read")
    go.set()
    until = time.monotonic() + 5
    while "fo-onnx-read" in {t.name for t in threading.enumerate()} and time.monotonic() < until:
        time.sleep(0.01)
    assert len(read) <= 1


def test_an_error_of_what_is_read_is_its_own() -> None:
    def read() -> None:
        raise fo.DataError("row 3")

    for timeout_s in (None, 60):
        with pytest.raises(fo.DataError, match="row 3"), begin(timeout_s) as control:
            control.bounded(read, "while a row was read")


def test_no_thread_is_left_of_a_run_in_time() -> None:
    before = threading.active_count()
    for _ in range(5):
        with begin(60) as control:
            control.bounded(lambda: None, "")
    until = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_lock_is_waited_for_no_longer_than_the_run_lasts() -> None:
    lock = threading.Lock()
    doing = "while another call used it"
    with pytest.raises(TimeUp, match=doing), lock, begin(0.05) as control, control.holding(lock, doing):
        pytest.fail("held twice")
    assert not lock.locked()


def test_what_is_to_be_done_at_the_end_is_done_however_it_ends() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), begin(None) as control:
        control.at_end(lambda: done.append(1))
        raise KeyboardInterrupt
    assert done == [1]


def test_a_call_that_begins_while_the_run_is_stopped_is_cut_off() -> None:
    control, ended = RunControl(), threading.Event()
    control.stop()
    with pytest.raises(RunEnded), control.calling("a batch", ended.set):
        pytest.fail("begun")
