"""The report of a choice, as it is recorded and read back."""

from __future__ import annotations

import json

import pytest

from fo_onnx.contracts.precision_report import PrecisionReport, PrecisionTrial

TRIAL = PrecisionTrial("int8", 2.5, 0.004, 0.02, 1, True)
FAILED = PrecisionTrial("bf16", problem="it failed")
REPORT = PrecisionReport("auto", "int8", 0.01, "the fastest", 160, 480, (TRIAL, FAILED), "ab" * 32)


def test_a_report_comes_back_as_it_was():
    assert PrecisionReport.from_dict(json.loads(json.dumps(REPORT.to_dict()))) == REPORT


@pytest.mark.parametrize(
    "damage",
    [
        {"choice": None}, {"tv_budget": "small"}, {"tv_budget": 7}, {"judged_rows": 1.5}, {"sha256": 1}, {"trials": None}, {"trials": [5]},
        {"trials": [{"name": 3}]}, {"trials": [{"name": "int8", "speedup": "fast"}]}, {"trials": [{}]}, {"more": 1},
    ],
)  # fmt: skip
def test_a_damaged_record_is_refused(damage):
    with pytest.raises((ValueError, TypeError)):
        PrecisionReport.from_dict({**REPORT.to_dict(), **damage})


def test_it_is_shown_in_lines():
    assert REPORT.lines() == [
        "int8: the fastest",
        "tried int8: 2.50 times float32, 99th percentile of total variation 4.0e-03 (max 2.0e-02, 1 argmax flips)",
        "tried bf16: it failed",
    ]


def test_what_was_not_run_is_not_within_a_budget():
    assert TRIAL.is_within(0.004)
    assert not TRIAL.is_within(0.003)
    assert not FAILED.is_within(1.0)
