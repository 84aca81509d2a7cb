"""The comparison: what it measures, what it refuses to prove, and what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx_files import WEIGHTS, expected, linear, node, rows

import fo_onnx as fo
from fo_onnx.cli.shared.records import parity_line
from fo_onnx.contracts.parity_report import ParityReport
from fo_onnx.conversion.parity import row_spread, uniform_distance
from fo_onnx.distributions.probabilities import softmax, total_variation
from fo_onnx.guards.printable import escaped

X = rows(300)


def native(x):
    return x @ WEIGHTS


@pytest.fixture
def model(tmp_path):
    return linear(tmp_path / "m.onnx")


def test_the_same_model(model):
    report = fo.verify(model, native, X)
    assert report.passed
    assert report.informative
    assert report.rows == 256
    assert report.batch_sizes == (256, 1, 2, 3)
    assert report.max_tv < 1e-6
    assert report.argmax_flips == 0
    assert report.deterministic
    assert "passed: the rows agree with callable, native, on cpu" in report.table()


def test_what_is_measured_is_the_distance_of_distributions(model):
    shifted = fo.verify(model, lambda x: x @ WEIGHTS + 5, X)
    assert shifted.passed
    hot = fo.verify(model, lambda x: x @ WEIGHTS / 1.5, X[:256])
    want = total_variation(expected(X[:256]), expected(X[:256], 1.5))
    assert hot.max_tv == pytest.approx(want.max(), rel=1e-4)
    assert hot.argmax_flips == 0
    assert not hot.passed
    assert f"up to {want.max():.2e}" in hot.verdict()


def test_flips_are_counted(model):
    swapped = fo.verify(model, lambda x: (x @ WEIGHTS)[:, [1, 0, 2, 3]], X[:256])
    assert swapped.argmax_flips == (expected(X[:256]).argmax(axis=1) < 2).sum()


def test_a_tolerance_is_the_callers(model):
    hot = lambda x: x @ WEIGHTS / 1.01  # noqa: E731
    assert not fo.verify(model, hot, X).passed
    assert fo.verify(model, hot, X, tolerance=0.1).passed


def test_a_model_that_samples_is_never_compared_away(model):
    rng = np.random.default_rng(0)
    report = fo.verify(model, lambda x: x @ WEIGHTS + rng.standard_normal((len(x), 4)) * 1e-3, X, tolerance=0.5)
    assert not report.deterministic
    assert not report.passed
    assert "samples in evaluation mode" in report.verdict()


def test_near_uniform_rows_prove_little(tmp_path):
    report = fo.verify(linear(tmp_path / "m.onnx", weights=WEIGHTS * 1e-4), lambda x: x @ WEIGHTS * 1e-4, X)
    assert report.passed
    assert not report.informative
    assert "a near-uniform model agrees with anything" in report.verdict()


def test_a_model_that_mixes_the_rows_of_a_batch_is_caught(tmp_path):
    """Right at the run's batch size by the original's own lights, wrong at the small ones."""
    tail = [node("ReduceMean", ["z", "axes"], ["m"], keepdims=1), node("Sub", ["z", "m"], ["y"])]
    path = linear(tmp_path / "m.onnx", *tail, output="y", initializers={"axes": np.array([0])})
    report = fo.verify(path, native, X)
    assert not report.passed
    assert report.max_tv > 0.05


def test_an_export_that_fails_on_rows_is_reported(tmp_path):
    tail = [node("Reshape", ["z", "s"], ["r"]), node("Identity", ["r"], ["y"])]
    path = linear(tmp_path / "m.onnx", *tail, output="y", initializers={"s": np.array([256, 4])})
    report = fo.verify(path, native, X)
    assert not report.passed
    assert "the exported model failed on rows of the data" in report.verdict()


def test_one_row_is_enough_and_none_is_not(model):
    assert fo.verify(model, native, X[:1]).rows == 1
    assert fo.verify(model, native, X, rows=5).rows == 5
    with pytest.raises(fo.DataError, match="needs at least one row"):
        fo.verify(model, native, X[:0])


def test_arguments_the_wrong_way_round(model):
    with pytest.raises(fo.ModelError, match="takes an exported file first"):
        fo.verify(native, model, X)
    with pytest.raises(fo.ModelError, match="is an ONNX file; the model that .* came from was expected"):
        fo.verify(model, model, X)


def test_the_spread_of_rows():
    probs = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert row_spread(probs) == 0.5
    assert row_spread(probs[:1]) == 0
    assert row_spread(np.repeat(probs[:1], 10, axis=0)) == 0
    assert row_spread(probs[:0]) == uniform_distance(probs[:0]) == 0
    assert uniform_distance(probs) == 0.5
    assert uniform_distance(np.full((3, 4), 0.25)) == 0


def rows_of(logits, factor=1.0):
    return softmax(np.asarray(logits, np.float64) * factor)


def confident(classes, n=256, of=2, seed=0):
    """Logits whose largest is the one of the class, by a margin of about 6."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, of)) * 0.3 + 6 * np.eye(of)[np.resize(classes, n)]


RNG = np.random.default_rng(1)
INFORMATIVE = {
    "binary, balanced, confident": rows_of(confident([0, 1])),
    "binary, 3 % of one kind": rows_of(confident([0] * 97 + [1] * 3)),
    "one class for nearly every row": rows_of(confident([0] * 255 + [1])),
    "one class for every row, saturated": rows_of(confident([3], of=10), 20),
    "ten classes": rows_of(confident(range(10), of=10)),
    "not confident, but different": rows_of(RNG.normal(size=(256, 1000)) * 0.3),
}
UNINFORMATIVE = {
    "uniform": np.full((256, 10), 0.1),
    "rows that differ by 1e-12": rows_of(RNG.normal(size=(256, 1000)) * 1e-12),
    "biases of a fresh layer of 512 inputs": rows_of(
        RNG.uniform(-1, 1, 1000) / 512**0.5 + RNG.normal(size=(256, 1000)) * 1e-9
    ),
    "biases of a fresh layer of 6 inputs": rows_of(RNG.uniform(-1, 1, 4) / 6**0.5 + RNG.normal(size=(256, 4)) * 1e-5),
    "one row": np.full((1, 3), 1 / 3),
}


@pytest.mark.parametrize("name", [*INFORMATIVE, *UNINFORMATIVE])
def test_what_an_agreement_proves(name):
    probs = {**INFORMATIVE, **UNINFORMATIVE}[name]
    report = replace(SOME_REPORT, row_spread=row_spread(probs), uniform_distance=uniform_distance(probs))
    assert report.passed
    assert report.informative == (name in INFORMATIVE)
    assert ("near-uniform" in report.verdict()) == (name in UNINFORMATIVE)
    assert ("near-uniform" in parity_line(report.to_dict())) == (name in UNINFORMATIVE)
    assert ParityReport.from_dict(report.to_dict()) == report


def test_a_record_that_does_not_tell_the_distance_from_uniform_says_nothing_of_it():
    record = SOME_REPORT.to_dict()
    del record["uniform_distance"]
    assert parity_line(record).startswith("passed: max total variation")
    assert "spread of the rows    0.000\n" in ParityReport.from_dict(record).table()


def test_a_table_of_a_hostile_record_is_escaped():
    report = replace(SOME_REPORT, reference="torch\x1b[2J\nverdict   passed", problem="a\u202eb")
    assert report.table().count("\n") == SOME_REPORT.table().count("\n")
    assert escaped(report.table(), keep_newlines=True) == report.table()


SOME_REPORT = ParityReport(
    reference="torch, native, on cpu", rows=256, batch_sizes=(256, 1), max_tv=1e-7, p99_tv=1e-7, mean_tv=1e-8, max_kl=1e-9,
    argmax_flips=0, tolerance=1e-4, row_spread=0.0, deterministic=True, uniform_distance=0.0,
)  # fmt: skip


def test_rounding_is_no_mixing_of_rows(model):
    """Rows that are run alone differ in their last bits; a tolerance below that gives way to the original's own noise."""
    report = fo.verify(model, lambda x: x @ WEIGHTS.astype(np.float32), X, tolerance=1e-12)
    assert report.row_dependence is None
    assert report.tolerance == 3 * report.noise > 1e-12
