"""Paths in turns, their ratios, and what these say."""

from __future__ import annotations

import time

import pytest

from fo_onnx.bench.turns import Ratio, ratio_of, time_in_turns


def test_paths_take_turns():
    order = []
    seconds = time_in_turns({name: lambda name=name: order.append(name) for name in "abc"}, 3)
    assert order == ["a", "b", "c"] * 3
    assert {name: len(of_path) for name, of_path in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_the_seconds_are_those_of_the_path():
    seconds = time_in_turns({"slow": lambda: time.sleep(0.05), "quick": lambda: None}, 2)
    assert all(s >= 0.05 for s in seconds["slow"])
    assert all(0 < s < 0.05 for s in seconds["quick"])


def test_a_ratio_is_of_each_turn():
    """The machine is twice as slow in the second turn, for both."""
    ratio = ratio_of([1.0, 2.0, 1.0], [3.0, 6.0, 3.3])
    assert (ratio.median, ratio.low) == (3.0, 3.0)
    assert ratio.high == pytest.approx(3.3)
    assert Ratio.from_dict(ratio.to_dict()) == ratio


@pytest.mark.parametrize(
    ("median", "verdict"), [(1.5, "faster"), (1.04, "the same"), (0.97, "the same"), (0.94, "slower"), (1.06, "faster")]
)
def test_within_the_spread_of_the_null_nothing_is_said(median, verdict):
    assert Ratio(median, median - 0.1, median + 0.1).verdict(Ratio(1.0, 0.95, 1.05)) == verdict
