"""Ctrl-C, SIGTERM and SIGHUP at any time: one line, exit code 130, and what was finished is kept, whoever presses twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import processes
import pytest
from onnx_files import linear

import fo_onnx as fo

COMMAND = [str(Path(sys.executable).with_name("fo-onnx"))]
MODULE = [sys.executable, "-m", "fo_onnx"]
SLOW_IMPORT = """
import pathlib, time
pathlib.Path("begun").touch()
time.sleep(60)
"""
WRAPPED = """
import pathlib, time
pathlib.Path("begun").touch()
try:
    time.sleep(60)
except BaseException as err:
    raise ImportError("the extension could not be loaded") from err
"""
ROWS = """
import pathlib, time
import numpy as np
class Rows:
    def __len__(self):
        return 4000
    def __getitem__(self, row):
        if row == 600:
            pathlib.Path("begun").touch()
        time.sleep(0.001)
        return np.random.default_rng(row).standard_normal(6).astype(np.float32)
data = Rows()
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    linear(tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.zeros((3, 6), np.float32))
    for name, text in (("slow", SLOW_IMPORT), ("wrapped", WRAPPED), ("lines", ROWS)):
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def start(work: Path, *arguments: str, command: list[str] = COMMAND) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(work)}
    return processes.start([*command, *arguments], cwd=work, env=environment)


def wait_for(begun: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not begun() and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    assert begun()


def signalled(work: Path, process: subprocess.Popen[str], *numbers: int, pause_s: float = 0.15) -> tuple[int, str, str]:
    """Sends signals once the process has come to where it is slow; how it ended."""
    try:
        wait_for((work / "begun").exists, process)
        for i, number in enumerate(numbers):
            time.sleep(pause_s if i else 0)
            process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode, output, errors


GENERATE = ("generate", "slow:model", "--data", "x.npy", "-o", "o.parquet")
INTERRUPTED = (130, "", "fo-onnx: interrupted.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(GENERATE, id="generate"),
        pytest.param(
            ("export", "slow:model", "--example", "x.npy", "-o", "o.onnx"), id="export", marks=pytest.mark.slow
        ),
        pytest.param(
            ("verify", "m.onnx", "--against", "slow:model", "--data", "x.npy"), id="verify", marks=pytest.mark.slow
        ),
    ],
)
def test_while_a_module_of_the_user_is_imported(work: Path, number: int, arguments: tuple[str, ...]) -> None:
    assert signalled(work, start(work, *arguments), number) == INTERRUPTED


def test_while_an_extension_is_imported_that_takes_it_for_a_failure(work: Path) -> None:
    arguments = [a.replace("slow", "wrapped") for a in GENERATE]
    assert signalled(work, start(work, *arguments), signal.SIGINT) == INTERRUPTED


@pytest.mark.parametrize(
    ("command", "number"),
    [(COMMAND, signal.SIGINT), (COMMAND, signal.SIGTERM), (COMMAND, signal.SIGHUP), (MODULE, signal.SIGINT)],
)
@pytest.mark.parametrize(("package", "arguments"), [("click", ["--help"]), ("numpy", ["check", "x.npy"])])
def test_while_the_command_itself_is_imported(
    work: Path, command: list[str], number: int, package: str, arguments: list[str]
) -> None:
    """A package that takes a minute to load stands for a slow disk: one of the command's start, and one of its work."""
    (work / package).mkdir()
    (work / package / "__init__.py").write_text(SLOW_IMPORT)
    assert signalled(work, start(work, *arguments, command=command), number) == INTERRUPTED


def test_pressed_twice_while_a_module_is_imported(work: Path) -> None:
    assert signalled(work, start(work, *GENERATE), signal.SIGINT, signal.SIGINT, pause_s=0.02) == INTERRUPTED


RUN = ("generate", "m.onnx", "--data", "lines:data", "-o", "o.parquet", "--batch-size", "16", "--no-progress")


def slow_unless_first(pauses: list[tuple[tuple[int, ...], float]]) -> list[object]:
    return [pytest.param(*p, marks=[] if i == 0 else pytest.mark.slow) for i, p in enumerate(pauses)]


@pytest.mark.parametrize(
    ("numbers", "pause_s"),
    slow_unless_first(
        [
            ((signal.SIGINT, signal.SIGTERM), 0.15),
            ((signal.SIGINT, signal.SIGINT), 0.0),
            ((signal.SIGINT, signal.SIGINT), 0.02),
            ((signal.SIGINT, signal.SIGINT), 0.5),
            ((signal.SIGTERM, signal.SIGTERM), 0.15),
            ((signal.SIGHUP, signal.SIGHUP), 0.15),
            ((signal.SIGHUP, signal.SIGINT), 0.3),
            ((signal.SIGINT,) * 8, 0.05),
        ]
    ),
)
def test_a_second_signal_loses_no_row(work: Path, numbers: tuple[int, ...], pause_s: float) -> None:
    code, output, errors = signalled(work, start(work, *RUN), *numbers, pause_s=pause_s)
    lines = errors.splitlines()
    rows = len(fo.load(work / "o.parquet.partial"))
    assert (code, output, len(lines)) == (130, "", 2), errors
    assert lines[0] == (
        f"fo-onnx: interrupted. The {rows} finished rows are kept in o.parquet.partial; --resume continues from them."
    )
    assert rows >= 600 - 16 * 12, "all but what was read ahead"


def test_what_nohup_ignores_stays_ignored(work: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(work)}
    (work / "lines.py").write_text(ROWS.replace("4000", "700"))
    process = subprocess.Popen(
        [*COMMAND, *RUN], cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    code, _, errors = signalled(work, process, signal.SIGHUP)
    assert code == 0, errors
    assert len(fo.load(work / "o.parquet")) == 700


def test_the_time_that_the_command_itself_takes_counts(work: Path) -> None:
    (work / "half.py").write_text("import time\ntime.sleep(1)\nmodel = lambda x: x\n")
    process = start(work, "generate", "half:model", "--data", "x.npy", "-o", "o.parquet", "--timeout", "0.5")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith(
        "fo-onnx: error: the run reached its --timeout 0.5 s; it had to wait until the opening of the model of 1."
    )
    assert not (work / "o.parquet.partial").exists()
