"""Ctrl-C twice in a program of the user: nothing that the first one kept is lost by the second."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import numpy as np
import processes
import pytest
from onnx_files import linear, rows

import fo_onnx as fo
from fo_onnx.contracts.batch import Batch
from fo_onnx.contracts.runner import RunOutput
from fo_onnx.control.run_control import RunControl
from fo_onnx.runtime.workers import run_inline

PROGRAM = """
import pathlib, signal, sys, time
import numpy as np
import fo_onnx as fo

model, data, out, kind = sys.argv[1:]


def slow(row):
    time.sleep(0.001)
    if (row == 7).all():
        pathlib.Path(data + ".begun").touch()
    return row


if kind == "native":
    model = lambda x: x[:, :4]
try:
    fo.generate(model, data, out=None if out == "-" else out, output="logits", batch_size=16, transform=slow, progress=False)
except KeyboardInterrupt as err:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(len(err.finished) if out == "-" else err.__notes__[0], flush=True)
"""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    x = rows(4000)
    x[600] = 7
    np.save(tmp_path / "x.npy", x)
    return tmp_path / "x.npy"


def interrupted(data: Path, *arguments: str, pause_s: float) -> str:
    model = linear(data.with_name("m.onnx"))
    process = processes.start([sys.executable, "-c", PROGRAM, str(model), str(data), *arguments])
    try:
        until = time.monotonic() + 60
        while not Path(f"{data}.begun").exists() and time.monotonic() < until:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        time.sleep(pause_s)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    return output.strip()


CASES = [
    ("onnx", 0.15),
    pytest.param("onnx", 0.0, marks=pytest.mark.slow),
    pytest.param("onnx", 0.03, marks=pytest.mark.slow),
    pytest.param("native", 0.15, marks=pytest.mark.slow),
    pytest.param("native", 0.0, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "pause_s"), CASES)
def test_rows_in_a_folder(data: Path, tmp_path: Path, kind: str, pause_s: float) -> None:
    out = tmp_path / "d.parquet"
    said = interrupted(data, str(out), kind, pause_s=pause_s)
    kept = len(fo.load(f"{out}.partial"))
    assert said == f"The {kept} finished rows are kept in {out}.partial; resume=True (--resume) continues from them."
    assert kept >= 600 - 16 * 12


@pytest.mark.parametrize(("kind", "pause_s"), CASES)
def test_rows_in_memory(data: Path, kind: str, pause_s: float) -> None:
    assert int(interrupted(data, "-", kind, pause_s=pause_s)) >= 600 - 16 * 12


HANGING = """
import os, sys, time
import fo_onnx as fo
from fo_onnx.store import files

write = files.operations.write


def write_or_hang(descriptor, content):
    if os.path.exists(sys.argv[3] + '.hangs'):
        print("hangs", flush=True)
        time.sleep(300)
    return write(descriptor, content)


def slow(row):
    time.sleep(0.001)
    return row


files.operations.write = write_or_hang
print("begun", flush=True)
try:
    fo.generate(sys.argv[1], sys.argv[2], out=sys.argv[3], batch_size=16, transform=slow, progress=False)
finally:
    print("left", flush=True)
"""


@pytest.mark.slow
def test_a_disk_that_hangs_can_be_left(data: Path, tmp_path: Path) -> None:
    """By a third press, once it has hung for a second."""
    out = tmp_path / "d.parquet"
    process = processes.start([sys.executable, "-c", HANGING, str(linear(tmp_path / "m.onnx")), str(data), str(out)])
    try:
        assert process.stdout is not None
        process.stdout.readline()
        processes.wait_for_run(out)
        Path(f"{out}.hangs").touch()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "hangs\n"
        begun = time.monotonic()
        time.sleep(1.2)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert time.monotonic() - begun < 30
    assert "left" in output, errors


def test_an_interrupt_waits_until_a_batch_is_delivered() -> None:
    """What takes the rows is never left in the middle."""

    class Echo:
        kind = "native"

        def run(self, inputs: dict[str, np.ndarray]) -> RunOutput:
            return RunOutput(np.ones((3, 2), np.float32))

    delivered = []

    def deliver(batch: Batch, output: RunOutput | None) -> None:
        if batch.start == 6:
            signal.raise_signal(signal.SIGINT)
        delivered.append(batch.start)

    def batches() -> object:
        for start in range(0, 30, 3):
            yield Batch(np.arange(start, start + 3), {"0": np.zeros((3, 2), np.float32)}, None, start)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_inline(Echo(), batches(), deliver, RunControl())  # type: ignore[arg-type]
    finally:
        signal.signal(signal.SIGINT, before)
    assert delivered == [0, 3, 6]
