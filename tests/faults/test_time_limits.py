"""``timeout_s`` bounds a run from the call on: opening, reading, calibration, export, comparison and every batch."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_files import FEATURES, linear, rows
from onnx_graphs import never_ending
from slow_models import Exporter, Model, request

import fo_onnx as fo
from fo_onnx.contracts.spec import ModelSpec
from fo_onnx.control.run_control import TimeUp, begin
from fo_onnx.engine.choose_runner import choose_runner
from fo_onnx.store import files

GENEROUS_S = 8
"""Far less than what the slow part of each test would take."""


def ends(timeout_s: float, match: str, *arguments: Any, **options: Any) -> fo.RunError:
    begun = time.monotonic()
    with pytest.raises(fo.RunError, match=match) as caught:
        fo.generate(*arguments, timeout_s=timeout_s, progress=False, **options)
    assert time.monotonic() - begun < GENEROUS_S
    return caught.value


@pytest.mark.parametrize("output", ["logits", "auto"])
@pytest.mark.parametrize("in_main_thread", [True, False])
def test_a_graph_that_never_ends(tmp_path: Path, output: str, in_main_thread: bool) -> None:
    """In the calibration batch as in the run, and from whichever thread it was called."""
    path, caught = never_ending(tmp_path / "endless.onnx"), []

    def run() -> None:
        caught.append(ends(0.6, r"reached its timeout_s=0\.6 s", path, rows(4), output=output, device="cpu"))

    if in_main_thread:
        run()
    else:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(GENEROUS_S)
    assert isinstance(caught[0], TimeUp)


def test_the_call_of_a_model_that_had_to_be_waited_for_is_named() -> None:
    calls = []

    def slow(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        time.sleep(0.5)
        return x

    ends(0.2, r"timeout_s=0\.2 s; it had to wait until the model's own call of 0\.[5-9] s ended", slow, rows(2000),
         batch_size=16, output="logits")  # fmt: skip
    assert len(calls) == 1, "none is begun after the end"


class Rows:
    """Rows that can be read by position, some of them slowly."""

    def __init__(self, seconds: Any, length: int = 1000) -> None:
        self.seconds, self.length, self.read = seconds, length, []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> np.ndarray:
        self.read.append(row)
        time.sleep(self.seconds(row))
        return rows(1, row)[0]


def test_a_first_row_that_hangs(tmp_path: Path) -> None:
    ends(0.3, "while a row was being read", linear(tmp_path / "m.onnx"), Rows(lambda row: 60 if row == 1 else 0))


def test_first_rows_that_are_slow_one_by_one(tmp_path: Path) -> None:
    data = Rows(lambda row: 0.1)
    ends(0.5, "while a row was being read", linear(tmp_path / "m.onnx"), data)
    time.sleep(0.3)
    seen = len(data.read)
    time.sleep(0.3)
    assert len(data.read) == seen, "nobody reads on for a run that is over"


def test_a_row_of_the_fingerprint_that_hangs(tmp_path: Path) -> None:
    data = Rows(lambda row: 60 if row == 999 else 0)
    ends(0.6, "while a row was being read", linear(tmp_path / "m.onnx"), data, out=tmp_path / "d.parquet")
    assert not (tmp_path / "d.parquet").exists()


@pytest.mark.parametrize("out", [None, "d.parquet"])
def test_an_iterable_that_hangs(tmp_path: Path, out: str | None) -> None:
    def samples() -> Any:
        yield rows(1)[0]
        time.sleep(60)

    target = None if out is None else tmp_path / out
    ends(0.4, "while a row was being read", linear(tmp_path / "m.onnx"), samples(), out=target)


HANGING = """
import time
import numpy as np
import fo_onnx as fo


class Rows:
    def __len__(self):
        return 400

    def __getitem__(self, row):
        time.sleep(60 if row == 300 else 0)
        return np.zeros(4, np.float32)


try:
    fo.generate(lambda x: x, Rows(), output="logits", num_workers=2, batch_size=16, timeout_s=1, progress=False)
except fo.RunError as err:
    print(err)
"""


def test_threads_that_hang_in_a_row_do_not_keep_the_program_from_ending() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=40, check=False)
    assert "while a row was being read" in done.stdout, done.stderr
    assert (done.returncode, done.stderr) == (0, "")


def test_data_that_are_slow_to_open(tmp_path: Path) -> None:
    class Slow(Rows):
        def __len__(self) -> int:
            time.sleep(60)
            return 3

    ends(0.3, "while the data were opened", linear(tmp_path / "m.onnx"), Slow(lambda row: 0))


def test_rows_that_are_skipped_by_a_resumed_run(tmp_path: Path) -> None:
    """An iterable is read from its beginning; the rows that are finished stay so."""
    model, out = linear(tmp_path / "m.onnx"), tmp_path / "d.parquet"

    def samples(seconds: float) -> Any:
        for row in range(600):
            time.sleep(seconds if row > 260 else 0)
            yield rows(1, row)[0]

    ends(1.5, "reached its timeout_s", model, samples(0.01), out=out, batch_size=16, limit=600)
    kept = len(fo.load(f"{out}.partial"))
    assert kept > 260
    ends(0.5, "reached its timeout_s", model, samples(0.2), out=out, resume=True, limit=600)
    assert len(fo.load(f"{out}.partial")) >= kept - 16
    assert len(fo.generate(model, samples(0), out=out, resume=True, limit=600)) == 600


@pytest.mark.parametrize(
    ("slow", "seconds", "named"),
    [
        ("export_s", 0.5, "its export"),
        ("digest_s", 0.5, "the digest of its weights"),
        ("native_s", 0.5, "opening it in its framework"),
        ("one_row_s", 0.5, "the model's own call"),  # of the comparison, which runs some rows alone
        ("forward_s", 0.5, "the model's own call"),
    ],
)
def test_each_part_of_a_selection(slow: str, seconds: float, named: str, recwarn: Any) -> None:
    model = Model()
    setattr(model, slow, seconds)
    with pytest.raises(TimeUp, match=f"it had to wait until {named} of 0.[5-9] s ended"), begin(0.25):
        choose_runner(request(model))
    assert not recwarn.list, "a run that is over falls back to nothing"


def test_an_export_that_fails_late_is_no_reason_to_run_natively(recwarn: Any) -> None:
    model = Model()
    model.export_s, model.fails = 0.5, True
    with pytest.raises(TimeUp, match="its export"), begin(0.25):
        choose_runner(request(model))
    assert not recwarn.list


def test_an_export_that_the_disk_has_no_room_for_is_no_reason_to_run_natively(recwarn: Any) -> None:
    class Full(Exporter):
        def export(self, *arguments: Any) -> ModelSpec:
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError as err:
                raise fo.ExportError("it cannot be exported") from err

    with pytest.raises(fo.StoreError, match="writing the export to .*: No space left on device. Make room there"):
        choose_runner(replace(request(Model()), plugin=Full()))
    assert not recwarn.list


def test_an_export_in_time_is_kept_for_the_next_run(empty_cache: Path) -> None:
    with begin(60):
        opened = choose_runner(request(Model()))
    assert opened.parity is not None
    assert opened.parity.passed
    assert (opened.export_origin, opened.runners[0].kind) == ("new", "onnx")
    late = Model()
    late.one_row_s = 0.5
    with pytest.raises(TimeUp), begin(0.25):
        choose_runner(request(late))
    assert choose_runner(request(Model())).export_origin == "cached", "the end of a run drops no cached export"


def test_batches_that_tell_what_a_row_depends_on(recwarn: Any) -> None:
    model = Model()
    model.reason, model.forward_s = "its framework is quicker", 0.1
    # Four batches are the first rows.
    with pytest.raises(TimeUp, match="the model's own call"), begin(0.55):
        choose_runner(request(model))
    assert not recwarn.list


def test_rows_with_nan_whose_original_is_in_use() -> None:
    """They do not come out as rows that have no distribution."""
    whole = request(Model())
    runner, x, go = choose_runner(whole).runners[0], rows(4), threading.Event()
    x[1, 2] = np.nan

    def use() -> None:
        with whole.turn:
            go.wait(10)

    user = threading.Thread(target=use)
    user.start()
    try:
        with pytest.raises(TimeUp, match="while another call used the model"), begin(0.3):
            runner.run({"0": x})
    finally:
        go.set()
        user.join(10)
    assert np.isnan(runner.run({"0": x}).probs[1]).all()


def test_rows_with_nan_that_the_original_answers_slowly() -> None:
    model = Model()
    runner = choose_runner(request(model)).runners[0]
    model.nan_s, x = 0.5, rows(4)
    x[1, 2] = np.nan
    with pytest.raises(TimeUp, match="it had to wait until the model's own call"), begin(0.2):
        kept = runner.run({"0": x}).probs
        assert np.isfinite(kept[[0, 2, 3]]).all()
        runner.run({"0": x})


def test_a_lock_on_the_cache_that_another_process_holds(empty_cache: Path, caplog: Any) -> None:
    choose_runner(request(Model()))
    with files.take_lock(empty_cache):
        begun = time.monotonic()
        with pytest.raises(TimeUp), begin(0.3):
            choose_runner(request(Model()))
        assert time.monotonic() - begun < GENEROUS_S


def test_data_without_rows_and_a_model_that_is_slow_to_say_its_classes() -> None:
    def slow(x: np.ndarray) -> np.ndarray:
        time.sleep(0.5)
        return x

    ends(0.2, "it had to wait until the model's own call", slow, np.empty((0, FEATURES), np.float32))


def test_finished_rows_of_a_native_run_include_those_that_were_waited_for(tmp_path: Path) -> None:
    def slow(x: np.ndarray) -> np.ndarray:
        time.sleep(0.15 if x[0, 0] >= 256 else 0)
        return x

    data = np.repeat(np.arange(1000, dtype=np.float32)[:, None], 3, axis=1)
    err = ends(1.2, "it had to wait|reached its timeout_s", slow, data, output="logits", batch_size=16)
    kept = err.finished  # type: ignore[attr-defined]
    assert 256 < len(kept) < 1000
    assert len(kept) % 16 == 0


def test_a_run_in_time_is_not_touched(tmp_path: Path) -> None:
    model, x = linear(tmp_path / "m.onnx"), rows(500)
    assert fo.generate(model, x, timeout_s=60).equals(fo.generate(model, x))
