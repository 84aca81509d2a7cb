"""Paths in turns, their ratios, and what these say."""

from __future__ import annotations

import pytest

from fo_onnx.bench.turns import Ratio, ratio_of, time_in_turns


def test_paths_take_turns():
    order, now = [], [0.0]

    def path(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds

        return run

    paths = {"a": path("a", 1.0), "b": path("b", 2.0), "c": path("c", 0.5)}
    seconds = time_in_turns(paths, 3, rest_s=0, clock=lambda: now[0])
    assert order == ["a", "b", "c"] * 3
    assert seconds == {"a": [1.0] * 3, "b": [2.0] * 3, "c": [0.5] * 3}


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
