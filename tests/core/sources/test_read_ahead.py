"""Reading ahead in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fo_onnx.sources import read_ahead

_EARLIER: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def earlier_threads() -> None:
    """Leave out the threads of other tests: one that hangs in a row is let go on."""
    _EARLIER.clear()
    _EARLIER.update(threading.enumerate())


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "fo-onnx-read-ahead" and t not in _EARLIER]


def test_order_and_end() -> None:
    assert list(read_ahead(iter(range(100)), depth=3)) == list(range(100))  # type: ignore[arg-type]
    assert list(read_ahead(iter([]))) == []
    assert threads() == []


@pytest.mark.parametrize("depth", [1, 3])
def test_it_is_bounded(depth: int) -> None:
    read: list[int] = []

    def source() -> Iterator[Any]:
        for i in range(100):
            read.append(i)
            yield i

    batches = read_ahead(source(), depth)
    assert next(batches) == 0  # type: ignore[comparison-overlap]
    time.sleep(0.05)
    assert 1 <= len(read) - 1 <= depth + 1
    batches.close()  # type: ignore[attr-defined]
    assert threads() == []


def test_it_overlaps() -> None:
    def source() -> Iterator[Any]:
        for i in range(10):
            time.sleep(0.01)
            yield i

    begin = time.perf_counter()
    for _ in read_ahead(source()):
        time.sleep(0.01)
    assert time.perf_counter() - begin < 0.175, "one after the other takes 0.2 s"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_errors_come_after_the_batches_before_them(error: BaseException) -> None:
    def source() -> Iterator[Any]:
        yield 1
        yield 2
        raise error

    batches = read_ahead(source())
    time.sleep(0.01)
    assert [next(batches), next(batches)] == [1, 2]
    with pytest.raises(type(error)) as caught:
        next(batches)
    assert caught.value is error
    assert threads() == []


def test_closing_early_closes_the_source_in_its_thread() -> None:
    closed: list[str] = []

    def source() -> Iterator[Any]:
        try:
            yield from range(1000)
        finally:
            closed.append(threading.current_thread().name)

    batches = read_ahead(source())
    next(batches)
    begin = time.perf_counter()
    batches.close()  # type: ignore[attr-defined]
    assert time.perf_counter() - begin < 0.3
    assert closed == ["fo-onnx-read-ahead"]
    assert threads() == []


def test_leaving_the_loop_ends_the_thread() -> None:
    for batch in read_ahead(iter(range(1000))):  # type: ignore[arg-type]
        if batch == 3:
            break
    del batch
    deadline = time.perf_counter() + 2
    while threads() and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert threads() == []


def test_a_source_that_hangs_does_not_hold_up_the_end() -> None:
    go = threading.Event()

    def source() -> Iterator[Any]:
        yield 1
        go.wait(10)
        yield 2

    batches = read_ahead(source())
    next(batches)
    begin = time.perf_counter()
    batches.close()  # type: ignore[attr-defined]
    assert time.perf_counter() - begin < 0.9
    go.set()
    deadline = time.perf_counter() + 2
    while threads() and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert threads() == []
