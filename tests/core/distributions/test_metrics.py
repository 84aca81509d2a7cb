from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fo_onnx.distributions.metrics import SMALLEST_PROBABILITY, MetricsAccumulator


def gathered(probs, labels, cuts=()):
    metrics = MetricsAccumulator(probs.shape[1])
    bounds = [0, *sorted(cuts), len(probs)]
    for start, stop in itertools.pairwise(bounds):
        metrics.update(probs[start:stop], None if labels is None else labels[start:stop])
    return metrics.result()


def plain(probs, labels):
    """The formulas as a textbook writes them, row by row."""
    n, k = probs.shape
    p = probs.astype(np.float64)
    confidence = p.max(axis=1)
    right = p.argmax(axis=1) == labels
    nll = -sum(math.log(max(p[i, labels[i]], SMALLEST_PROBABILITY)) for i in range(n)) / n
    brier = sum(sum((p[i, c] - (labels[i] == c)) ** 2 for c in range(k)) for i in range(n)) / n
    ece = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return {"accuracy": right.mean(), "nll": nll, "brier": brier, "ece": ece}


def test_values_worked_out_by_hand():
    probs = np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]], dtype=np.float32)
    result = gathered(probs, np.array([0, 1, 1]))
    assert result["rows"] == 3
    assert result["predicted_classes"] == [2, 1]
    assert result["true_classes"] == [1, 2]
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["entropy"]["max"] == pytest.approx(math.log(2))
    assert result["entropy"]["min"] == 0
    assert math.copysign(1, result["entropy"]["min"]) == 1
    assert result["confidence"] == {"mean": 0.75, "min": 0.5, "max": 1.0}
    assert result["nll"] == pytest.approx((math.log(2) - math.log(SMALLEST_PROBABILITY) - math.log(0.75)) / 3)
    assert result["brier"] == pytest.approx((0.5 + 2.0 + 0.125) / 3)
    # One row in each of three bins: |1 - .5|, |0 - 1|, |1 - .75|.
    assert result["ece"] == pytest.approx((0.5 + 1.0 + 0.25) / 3)


def test_against_formulas_written_row_by_row():
    rng = np.random.default_rng(3)
    probs = rng.dirichlet(np.full(7, 0.3), 500).astype(np.float32)
    labels = rng.integers(0, 7, 500)
    result = gathered(probs, labels)
    for name, value in plain(probs, labels).items():
        assert result[name] == pytest.approx(value, abs=1e-12), name


def test_a_shuffled_label_shows():
    rng = np.random.default_rng(4)
    probs = rng.dirichlet(np.full(4, 0.1), 400).astype(np.float32)
    labels = probs.argmax(axis=1)
    good, bad = gathered(probs, labels), gathered(probs, np.roll(labels, 1))
    assert good["accuracy"] == 1
    assert bad["accuracy"] < 0.6
    assert bad["nll"] > good["nll"]
    assert bad["brier"] > good["brier"]
    assert bad["ece"] > good["ece"]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 60), max_size=8), labelled=st.booleans())
def test_the_result_does_not_depend_on_how_rows_are_cut(seed, cuts, labelled):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(3, 0.5), 60).astype(np.float32)
    labels = rng.integers(0, 3, 60) if labelled else None
    whole, parts = gathered(probs, labels), gathered(probs, labels, cuts)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert parts[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name


def test_without_labels_and_without_rows():
    assert "accuracy" not in gathered(np.array([[0.5, 0.5]], dtype=np.float32), None)
    empty = MetricsAccumulator(3).result()
    assert empty["rows"] == 0
    assert empty["entropy"] == {"mean": None, "min": None, "max": None}
    assert empty["predicted_classes"] == [0, 0, 0]


def test_the_result_is_json():
    result = gathered(np.array([[0.5, 0.5]], dtype=np.float32), np.array([1]))
    assert json.loads(json.dumps(result)) == result
