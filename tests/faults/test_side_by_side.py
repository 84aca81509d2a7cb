"""Several calls on one engine at the same time: none ends another, and none takes another's sessions away."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from onnx_files import linear, rows
from onnx_graphs import endless

import fo_onnx as fo


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return linear(tmp_path / "m.onnx")


class Gate:
    """Rows of which one is read only when it may be; tells when a run has come there."""

    def __init__(self, data: np.ndarray, row: int) -> None:
        self.data, self.row, self.there, self.open = data, row, threading.Event(), threading.Event()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> np.ndarray:
        if row == self.row:
            self.there.set()
            assert self.open.wait(60)
        return self.data[row]


def begun(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """A call in a thread of its own, and what it gave or raised."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(call())
        except Exception as err:
            outcome.append(err)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, outcome


def ended(thread: threading.Thread, outcome: list[Any]) -> Any:
    thread.join(60)
    assert not thread.is_alive()
    return outcome[0]


def test_the_timeout_of_one_run_leaves_others_alone(model: Path) -> None:
    x = rows(2000)
    with fo.Engine(model, device="cpu", batch_size=16) as engine:
        expected, gate = engine.generate(x), Gate(x, 1000)
        long = begun(lambda: engine.generate(gate, progress=False))
        assert gate.there.wait(60)
        with pytest.raises(fo.RunError, match=r"timeout_s=0\.3 s"):
            engine.generate(x, progress=False, timeout_s=0.3, transform=lambda row: (time.sleep(0.002), row)[1])
        np.testing.assert_array_equal(engine.predict(x[:16]), expected.probs[:16])
        gate.open.set()
        assert ended(*long).equals(expected)


def test_a_run_of_other_options_leaves_the_sessions_of_another_open(model: Path, tmp_path: Path) -> None:
    """A resumed run is cut as it was begun, for which the engine opens the model anew."""
    x, out = rows(2000), tmp_path / "d.parquet"
    with pytest.raises(fo.RunError):
        fo.generate(model, x, out=out, batch_size=32, timeout_s=2, transform=lambda row: (time.sleep(0.004), row)[1])
    expected = fo.generate(model, x, device="cpu", batch_size=16)
    with fo.Engine(model, device="cpu", batch_size=16) as engine:
        gate = Gate(x, 1000)
        long = begun(lambda: engine.generate(gate, progress=False))
        assert gate.there.wait(60)
        resumed = engine.generate(x, out=out, resume=True, transform=lambda row: row)
        assert resumed.meta["engine"]["batch_size"] == 32
        gate.open.set()
        assert ended(*long).equals(expected)


def test_closing_lets_the_calls_in_progress_end(model: Path) -> None:
    x, engine = rows(2000), fo.Engine(model, device="cpu", batch_size=16)
    expected, gate = engine.generate(x), Gate(x, 1000)
    runner = engine._shared.opened.runners[0]
    long = begun(lambda: engine.generate(gate, progress=False))
    assert gate.there.wait(60)

    engine.close()

    with pytest.raises(fo.RunError, match="the engine is closed; open another one"):
        engine.predict(x[:3])
    with pytest.raises(fo.RunError, match="the engine is closed; open another one"):
        engine.generate(x)
    gate.open.set()
    assert ended(*long).equals(expected)
    with pytest.raises(fo.RunError, match="the engine is closed"):
        runner.run({"x": x[:3]})


def test_sessions_that_were_replaced_are_closed_with_their_last_call(model: Path, tmp_path: Path) -> None:
    x, out = rows(600), tmp_path / "d.parquet"
    with pytest.raises(fo.RunError):
        fo.generate(model, x, out=out, batch_size=32, timeout_s=2, transform=lambda row: (time.sleep(0.004), row)[1])
    with fo.Engine(model, device="cpu", batch_size=16) as engine:
        engine.predict(x[:16])
        first = engine._shared.opened.runners[0]
        engine.generate(x, out=out, resume=True, transform=lambda row: row)
        with pytest.raises(fo.RunError, match="the engine is closed"):
            first.run({"x": x[:3]})


def test_a_model_of_a_framework_is_called_by_one_run_at_a_time() -> None:
    active, most, x = 0, 0, rows(300)

    def model(batch: np.ndarray) -> np.ndarray:
        nonlocal active, most
        active += 1
        most = max(most, active)
        time.sleep(0.002)
        active -= 1
        return batch[:, :4]

    with fo.Engine(model, output="logits", batch_size=16) as engine:
        calls = [begun(lambda: engine.generate(x, progress=False)) for _ in range(4)]
        results = [ended(*call) for call in calls]
    assert most == 1
    assert all(result.equals(results[0]) for result in results)


def test_two_first_runs_open_the_model_once_and_wait_no_longer_than_they_may() -> None:
    opened, go = [], threading.Event()

    def model(batch: np.ndarray) -> np.ndarray:
        opened.append(len(batch))
        go.wait(60)
        return batch[:, :4]

    x = rows(8)
    with fo.Engine(model, output="logits", batch_size=16) as engine:
        first = begun(lambda: engine.generate(x, progress=False))
        while not opened:
            time.sleep(0.01)
        with pytest.raises(fo.RunError, match=r"timeout_s=0\.2 s while another call opened the model"):
            engine.generate(x, progress=False, timeout_s=0.2)
        go.set()
        assert len(ended(*first)) == 8
        assert len(engine.generate(x)) == 8


INTERRUPTED = """
import sys, threading, numpy as np, fo_onnx as fo
rows = np.array([[1, 2, 3], [3, 0, 1]], np.float32)
with fo.Engine(sys.argv[1], output="logits", device="cpu") as engine:
    before = engine.predict(rows)
    other = []
    def slow(row):
        import time
        time.sleep(0.01)
        return row
    thread = threading.Thread(target=lambda: other.append(engine.generate(np.repeat(rows, 60, axis=0), transform=slow)))
    thread.start()
    print("begun", flush=True)
    try:
        engine.predict(rows * 2**60)
        print("ended by itself")
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print((engine.predict(rows) == before).all(), flush=True)
    thread.join()
    print(len(other[0]), flush=True)
"""


def test_a_prediction_that_is_interrupted_leaves_the_engine_and_other_runs_alone(tmp_path: Path) -> None:
    process = processes.start([sys.executable, "-c", INTERRUPTED, str(endless(tmp_path / "loop.onnx"))])
    try:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.8)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert output.split() == ["interrupted", "True", "120"], errors
