from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fo_onnx.distributions.probabilities import (
    apply_head,
    check_raw_shape,
    decide_kind,
    entropy,
    invalid_rows,
    kl_divergence,
    softmax,
    total_variation,
)
from fo_onnx.errors import OutputError

logits = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.floats(-50, 50, width=32))


@given(logits, st.floats(0.1, 10))
def test_softmax_gives_distributions_and_keeps_the_order(z, temperature):
    p = softmax(z, temperature)
    assert p.dtype == np.float32
    assert len(invalid_rows(p)) == 0
    assert (p.argmax(axis=1) == z.argmax(axis=1)).all() or np.allclose(
        p.max(axis=1), p[np.arange(len(z)), z.argmax(axis=1)]
    )


def test_softmax_of_large_logits_does_not_overflow():
    assert softmax(np.array([[1e4, 0.0]], np.float32)).tolist() == [[1.0, 0.0]]


def test_a_temperature_divides_logits():
    z = np.array([[1.0, 3.0]])
    assert np.allclose(softmax(z, 2.0), softmax(z / 2))


def test_softmax_of_rows_that_are_not_finite():
    p = softmax(np.array([[np.nan, 0], [np.inf, 0], [-np.inf, 0]], np.float32))
    assert np.isnan(p[:2]).all()
    assert p[2].tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("kind", "raw", "probs"),
    [
        ("logits", [[0.0, np.log(3)]], [[0.25, 0.75]]),
        ("probs", [[0.25, 0.7500001]], [[0.25, 0.75]]),
        ("log_probs", [[np.log(0.25), np.log(0.75)]], [[0.25, 0.75]]),
        ("log_probs", [[-np.inf, 0.0]], [[0.0, 1.0]]),
        ("binary_logits", [[np.log(3)]], [[0.25, 0.75]]),
        ("binary_logits", [np.log(3)], [[0.25, 0.75]]),
        ("binary_probs", [[0.75]], [[0.25, 0.75]]),
        ("binary_probs", [0.75], [[0.25, 0.75]]),
    ],
)
def test_heads(kind, raw, probs):
    found, _ = apply_head(np.array(raw), kind)
    assert found.dtype == np.float32
    assert np.allclose(found, probs, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("probs", [[0.5, 0.6]]),
        ("probs", [[-0.1, 1.1]]),
        ("probs", [[np.nan, 0.5]]),
        ("log_probs", [[-1.0, -1.0]]),
        ("binary_probs", [[1.2]]),
        ("binary_probs", [[-0.2]]),
        ("binary_logits", [[np.nan]]),
    ],
)
def test_what_is_no_distribution_becomes_nan(kind, raw):
    assert np.isnan(apply_head(np.array(raw), kind)[0]).all()


def test_a_temperature_does_not_hide_log_probabilities_that_are_none():
    raw = np.log(np.array([[0.2, 0.8]]))
    assert np.allclose(apply_head(raw, "log_probs", 2.0)[0], softmax(raw / 2), atol=1e-6)
    assert np.isnan(apply_head(raw + 1, "log_probs", 2.0)[0]).all()


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ([[2.0, -1.0], [0.1, 0.2]], "logits"),
        ([[0.25, 0.75], [1.0, 0.0]], "probs"),
        ([[np.log(0.25), np.log(0.75)]], "log_probs"),
        ([[-np.inf, 0.0], [np.log(0.5), np.log(0.5)]], "log_probs"),
        ([[3.0], [-1.0]], "binary_logits"),
        ([3.0, -1.0], "binary_logits"),
        ([[np.nan, np.nan], [0.5, 0.5]], "probs"),
    ],
)
def test_the_meaning_of_an_output_is_detected_from_a_batch(raw, kind):
    assert decide_kind(np.array(raw)) == kind


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ([[0.5, 0.9]], r"within \[0, 1\] whose rows sum to 1.4 .*multi-label.*output='logits'"),
        ([[0.5], [0.7]], "one number per sample, all within .*output='binary_probs' or output='binary_logits'"),
        ([[np.nan, 1.0]], "no finite output on the first 1 rows"),
        ([[[1.0, 2.0], [3.0, 4.0]]], r"shape \(1, 2, 2\)"),
        (1.0, "a scalar"),
    ],
)
def test_ambiguous_outputs(raw, text):
    with pytest.raises(OutputError, match=text):
        decide_kind(np.array(raw))


@pytest.mark.parametrize(
    ("shape", "kind", "rows", "text"),
    [
        ((), None, 3, "a scalar"),
        ((4, 2), None, 3, r"for 3 rows; .* shape \(3, classes\)"),
        ((3, 7, 2), None, 3, "output_name="),
        ((3, 1), "logits", 3, "say output='binary_logits'"),
        ((3, 2), "binary_probs", 3, r"\(n,\) or \(n, 1\) was expected"),
        ((3, 0), None, 3, "no classes"),
    ],
)
def test_shapes_that_cannot_be_one_distribution_per_row(shape, kind, rows, text):
    with pytest.raises(OutputError, match=text):
        check_raw_shape(shape, kind, rows, "net")


@pytest.mark.parametrize("shape", [(None, None, 4), (None, 4, None, None), (None, 1, 4), (3, 4, 1, 1), (1, 1, 1)])
def test_shapes_that_can_be_one_distribution_per_row(shape):
    check_raw_shape(shape, None, shape[0], "net")


def test_invalid_rows():
    probs = np.array([[0.5, 0.5], [0.5, 0.6], [-0.1, 1.1], [np.nan, 1], [1, 0], [np.inf, 0]], np.float32)
    assert invalid_rows(probs).tolist() == [1, 2, 3, 5]


@given(logits, logits)
def test_distances(a, b):
    if a.shape != b.shape:
        b = a[::-1]
    p, q = softmax(a), softmax(b)
    tv = total_variation(p, q)
    assert (tv >= 0).all()
    assert (tv <= 1 + 1e-6).all()
    assert np.allclose(tv, total_variation(q, p))
    # Pinsker: TV <= sqrt(KL / 2)
    assert (tv <= np.sqrt(np.maximum(kl_divergence(p, q), 0) / 2) + 1e-3).all()
    assert (total_variation(p, p) == 0).all()


def test_distances_by_hand():
    p, q = np.array([[0.5, 0.5, 0.0]]), np.array([[0.25, 0.25, 0.5]])
    assert total_variation(p, q).tolist() == [0.5]
    assert np.allclose(kl_divergence(p, q), np.log(2))
    assert kl_divergence(q, p)[0] == np.inf


def test_entropy_by_hand():
    assert np.allclose(entropy(np.array([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])), [np.log(2), 0, 0.5623351446])
