"""What a row depends on besides its input: sampling, mixing and noise, told apart."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from array_framework import Pair, pairs  # noqa: F401 a fixture
from onnx_files import WEIGHTS, linear, node, rows
from planted_effects import MIXERS

import fo_onnx as fo
from fo_onnx.conversion.batch_effects import measure_batch_effects
from fo_onnx.distributions.probabilities import softmax

X = rows(300)
RNG = np.random.default_rng(0)
SAMPLERS = {
    "noise": lambda z: z + RNG.standard_normal(z.shape) * 1e-3,
    "dropout": lambda z: z * (RNG.random(z.shape) < 0.9),
    "one row of the batch": lambda z: z + (np.arange(len(z)) == RNG.integers(len(z)))[:, None] * RNG.random(z.shape[1]),
}


def logits(inputs):
    return inputs["0"].astype(np.float64) @ WEIGHTS


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("rows_of_batch", [2, 7, 300])
def test_a_row_that_changes_with_its_companions_is_mixed(name, rows_of_batch):
    effects = measure_batch_effects(lambda batch: softmax(MIXERS[name](np, logits(batch))), {"0": X}, rows_of_batch)
    assert not effects.samples
    assert "mixes the rows of a batch" in effects.dependence


def test_companions_are_replaced_by_other_rows():
    """The largest of all rows, of which there are many, is the same in any order of them; that of a few is not."""
    ordered = X[np.argsort(logits({"0": X}).max(axis=1))]
    ordered[100:] = ordered[-1]
    effects = measure_batch_effects(lambda batch: softmax(logits(batch) / logits(batch).max()), {"0": ordered}, len(X))
    assert effects.mixing > 1e-3


@pytest.mark.parametrize("name", SAMPLERS)
def test_two_runs_of_one_batch_that_differ_are_sampled(name):
    effects = measure_batch_effects(lambda batch: softmax(SAMPLERS[name](logits(batch))), {"0": X}, 256)
    assert effects.samples
    assert "samples in evaluation mode" in effects.dependence


@pytest.mark.parametrize("count", [1, 2, 300])
def test_rows_of_their_own_depend_on_nothing(count):
    effects = measure_batch_effects(lambda batch: softmax(logits(batch)), {"0": X[:count]}, 256)
    assert effects.sampling == effects.mixing == 0
    assert effects.dependence is None


def test_what_differs_by_the_size_of_a_batch_is_no_mixing():
    """Rounding: other kernels at other sizes, the same at the same size and place."""
    effects = measure_batch_effects(lambda batch: softmax(logits(batch) * (1 + 1e-3 * len(batch["0"]))), {"0": X}, 256)
    assert effects.dependence is None


def test_nobody_is_nearer_to_a_model_than_it_is_to_itself(tmp_path):
    """Its own noise between batch sizes, three times, is the tolerance where that is larger."""

    def noisy(x):
        return x @ WEIGHTS * (1 + (2e-3 if len(x) == 1 else 0))

    report = fo.verify(linear(tmp_path / "m.onnx"), noisy, X)
    assert 1e-4 < report.max_tv <= report.noise < 1e-2
    assert report.tolerance == pytest.approx(3 * report.noise)
    assert report.passed
    assert f"three times the original's own noise of {report.noise:.1e}" in report.table()
    assert type(report).from_dict(report.to_dict()) == report


def test_rows_that_depend_on_the_size_of_their_batch_are_no_noise(tmp_path):
    report = fo.verify(linear(tmp_path / "m.onnx"), lambda x: x @ WEIGHTS * (1 if len(x) > 1 else 2), X)
    assert not report.passed
    assert "depend on the size of their batch" in report.verdict()
    assert report.tolerance == 1e-4


@pytest.mark.usefixtures("pairs")
def test_a_model_that_takes_no_row_alone_is_asked_for_a_few():
    """The mixing check has batches of 128 rows, like the comparison."""

    def by_size(x):
        if len(x) == 1:
            raise ValueError("one row")
        return x @ WEIGHTS * (1 if len(x) > 100 else 2)

    with pytest.raises(fo.ParityError, match="depend on the size of their batch"):
        fo.generate(Pair(by_size), rows(1000), runner="onnx", progress=False)


@pytest.mark.parametrize("name", MIXERS)
def test_a_function_that_mixes_is_said_to(name):
    def model(x):
        return MIXERS[name](np, x.astype(np.float64) @ WEIGHTS)

    with pytest.warns(fo.FallbackWarning, match="mixes the rows of a batch"):
        dists = fo.generate(model, X, output="logits")
    assert "mixes the rows of a batch" in dists.meta["runner"]["reason"]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_function_that_samples_is_said_to(name):
    with pytest.warns(fo.FallbackWarning, match="samples in evaluation mode"):
        fo.generate(lambda x: SAMPLERS[name](x @ WEIGHTS), X, output="logits")


MIXING = (node("Softmax", ["z"], ["q"], axis=0), node("Softmax", ["q"], ["out"], axis=-1))
SAMPLING = (
    node("RandomNormalLike", ["z"], ["r"]),
    node("Add", ["z", "r"], ["q"]),
    node("Softmax", ["q"], ["out"], axis=-1),
)


@pytest.mark.parametrize("size", [16, 64])
def test_a_file_that_mixes_runs_row_by_row(tmp_path, size):
    path = linear(tmp_path / "m.onnx", *MIXING, output="out")
    with pytest.warns(fo.FallbackWarning, match="runs row by row: the model mixes the rows of a batch"):
        dists = fo.generate(path, X, batch_size=size)
    assert dists.meta["engine"]["batch_size"] == 1
    assert dists.meta["runner"]["reason"].startswith("row by row: the model mixes")
    np.testing.assert_allclose(dists.probs, 0.25, atol=1e-6)


def test_a_file_that_samples_gives_the_same_rows_in_another_run(tmp_path):
    path = linear(tmp_path / "m.onnx", *SAMPLING, output="out")
    runs = []
    for size in (16, 64):
        with pytest.warns(fo.FallbackWarning, match="runs row by row: the model samples"):
            runs.append(fo.generate(path, X, batch_size=size))
    assert runs[0].equals(runs[1])
    assert len(np.unique(runs[0].probs, axis=0)) == len(X)


def test_a_file_that_mixes_in_batches_of_a_fixed_size_is_refused(tmp_path):
    path = linear(tmp_path / "m.onnx", *MIXING, output="out")
    proto = onnx.load(path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(proto, path)
    with pytest.raises(fo.OutputError, match="batches of 8 rows are built into it. Export it for batches of any size"):
        fo.generate(path, X)


def test_a_comparison_in_which_one_side_gives_nan_says_so(tmp_path):
    def holes(x):
        return np.where(np.arange(len(x))[:, None] % 50 == 49, np.nan, x @ WEIGHTS)

    report = fo.verify(linear(tmp_path / "m.onnx"), holes, X)
    assert not report.passed
    assert "the original gives no distribution (NaN) for" in report.verdict()
