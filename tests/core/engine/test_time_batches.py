"""Engine.time_batches: seconds of each run by batch size, which change nothing of other runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_files import linear, rows

import fo_onnx as fo


def test_seconds_by_batch_size(tmp_path: Path) -> None:
    with fo.Engine(linear(tmp_path / "m.onnx"), output="logits") as engine:
        timings = engine.time_batches(rows(8), [1, 8], least_s=0.001)
    assert list(timings) == [1, 8]
    assert all(len(seconds) >= 3 and min(seconds) > 0 for seconds in timings.values())


def test_a_run_is_planned_as_without_it(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx")
    plans = []
    for is_timed in (False, True):
        with fo.Engine(path, output="logits") as engine:
            if is_timed:
                engine.time_batches(rows(8), [8], least_s=0.001)
            meta = engine.generate(rows(5000)).meta["engine"]
            plans.append([meta[key] for key in ("batch_size", "sessions", "threads", "tuning")])
    assert plans[0] == plans[1]


def test_bad_sizes(tmp_path: Path) -> None:
    with fo.Engine(linear(tmp_path / "m.onnx"), output="logits") as engine:
        with pytest.raises(fo.DataError, match="timing batches of 64 rows: there are 8 rows"):
            engine.time_batches(rows(8), [8, 64])
        with pytest.raises(fo.OptionError, match="batch_sizes=0 is not usable"):
            engine.time_batches(rows(8), [0])
        assert engine.time_batches(rows(8), []) == {}
