"""How many rows cost little in one call of the original, and how many a call of the spot checks has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fo_onnx.contracts.batch import Inputs, count_rows
from fo_onnx.contracts.runner import CallTime
from fo_onnx.conversion import reference
from fo_onnx.conversion.reference import Reference, time_calls
from fo_onnx.errors import RunError


def reference_of(*calls: tuple[int, float]) -> Reference:
    model: Any = SimpleNamespace()
    rows = np.zeros((256, 2), np.float32)
    plan: Any = None
    return Reference(model, {"0": rows}, rows, plan, is_whole=True, calls=calls)


@pytest.mark.parametrize(
    ("calls", "rows"),
    [
        ([(128, 0.2), (128, 0.01)], 128),
        ([(128, 0.2), (128, 0.1)], 16),
        ([(8, 1.0)], 8),
        ([(128, 0.1), (22, 0.001)], 128),
    ],
    ids=["quick once it is prepared", "slow", "slow in smaller batches", "the last one is smaller"],
)
def test_a_quick_call_has_as_many_rows_as_those_before(calls: list[tuple[int, float]], rows: int) -> None:
    assert reference_of(*calls).prepared_rows == rows


@pytest.mark.parametrize(
    ("row_s", "batch_s", "expected"),
    [(0.001, 0.064, CallTime(1, 0.001)), (0.001, 0.063, CallTime(128, 0.063)), (None, 0.2, CallTime(128, 0.2))],
    ids=["a call costs no more than its row", "a call costs more", "a row alone is refused"],
)
def test_rows_run_one_by_one_where_that_costs_little(
    monkeypatch: pytest.MonkeyPatch, row_s: float | None, batch_s: float, expected: CallTime
) -> None:
    def time_call(model: Any, inputs: Inputs) -> float:
        if count_rows(inputs) > 1:
            return batch_s
        if row_s is None:
            raise RunError("one row")
        return row_s

    monkeypatch.setattr(reference, "_time", time_call)
    assert time_calls(reference_of((128, 0.01))) == expected
