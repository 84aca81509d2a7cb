"""How many rows a turn has."""

from __future__ import annotations

import numpy as np
import pytest

from fo_onnx.bench import timed_path
from fo_onnx.bench.paths import RunningPath
from fo_onnx.bench.result import PathResult
from fo_onnx.bench.timed_path import TimedPath, cut_rows
from fo_onnx.contracts.batch import count_rows

INPUTS = {"x": np.zeros((2_000, 3), np.float32)}


def path(**plan):
    def run(inputs, batch_size):
        return np.full((count_rows(inputs), 2), 0.5, np.float32)

    return TimedPath(RunningPath(run, lambda: plan), PathResult("path", is_native=False, batch_size=None), (None,))


@pytest.mark.parametrize(
    ("plans", "rows"),
    [
        ([{}], 32),
        ([{}, {"batch_size": 16, "sessions": 2}], 256),
        ([{"batch_size": 16, "sessions": 2}, {"batch_size": 40, "sessions": 1}], 320),
        ([{"batch_size": 500, "sessions": 4}], 2_000),
    ],
)
def test_a_turn_has_eight_batches_for_each_session_however_short(plans, rows, monkeypatch):
    monkeypatch.setattr(timed_path, "TURN_S", 0.0)
    assert count_rows(cut_rows(INPUTS, [path(**plan) for plan in plans], None, 32)) == rows


def test_a_turn_of_quick_paths_has_all_rows_and_rows_that_were_asked_for_are_kept():
    assert count_rows(cut_rows(INPUTS, [path()], None, 32)) == 2_000
    assert cut_rows(INPUTS, [path()], 2_000, 32) is INPUTS
