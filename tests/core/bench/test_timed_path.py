"""How many rows a turn has."""

from __future__ import annotations

import numpy as np
import pytest

from fo_onnx.bench import timed_path
from fo_onnx.bench.paths import RunningPath
from fo_onnx.bench.result import PathResult
from fo_onnx.bench.timed_path import TimedPath, count_turn_rows, take_rows
from fo_onnx.contracts.batch import count_rows

INPUTS = {"x": np.arange(2_000, dtype=np.float32)[:, None]}


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
        ([{"batch_size": 500, "sessions": 4}], 2_016),
    ],
)
def test_a_turn_has_eight_batches_for_each_session_however_short(plans, rows, monkeypatch):
    monkeypatch.setattr(timed_path, "TURN_S", 0.0)
    assert count_turn_rows(INPUTS, [path(**plan) for plan in plans], 32, 100_000) == rows


def test_a_turn_of_quick_paths_has_more_rows_than_small_data_and_no_more_than_the_most():
    assert count_turn_rows(take_rows(INPUTS, 10), [path()], 32, 5_000) == 5_000


def test_rows_are_repeated_from_the_beginning_when_there_are_fewer():
    assert take_rows(INPUTS, 3)["x"].tolist() == [[0.0], [1.0], [2.0]]
    assert take_rows(take_rows(INPUTS, 3), 7)["x"].ravel().tolist() == [0, 1, 2, 0, 1, 2, 0]
