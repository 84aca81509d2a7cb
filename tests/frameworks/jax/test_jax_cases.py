"""Every JAX case by way of jax2tf and tf2onnx, in ONNX Runtime, against JAX."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")
jax = pytest.importorskip("jax")
if tuple(map(int, jax.__version__.split(".")[:3])) >= (0, 7, 2):
    pytest.skip("jax2tf makes no graphs from jax 0.7.2 on", allow_module_level=True)

import jax_libraries  # noqa: E402, F401  imported first: where its remarks are no errors
import onnxruntime as ort  # noqa: E402
from fo_onnx_jax.jax2tf.export import write_onnx  # noqa: E402
from jax_cases import CASES, CLASSES, Case, call  # noqa: E402

from fo_onnx.contracts.spec import TensorSpec  # noqa: E402
from fo_onnx.errors import ExportError  # noqa: E402

ROWS = 20
LEAST_SPREAD = 0.05
NATIVE = {"pure_callback": "pure_callback"}
"""Cases that ONNX has no operators for, and what the error says of them."""
QUICK = {
    "plain", "vmap_conv", "conv3d", "conv_grouped", "maxpool_expl_neg", "cummax", "argsort", "take_along", "scatter_add",
    "dyn_slice", "while_data", "cond", "f16", "bf16", "dict_in", "uint8_in", "bool_in", "embed_i64np", "math",
    "erfinv_lgamma", "linalg_chol", "fft", "scan_gru",
}  # fmt: skip
"""Seconds together; the others are run with the slow tests."""


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return 0.5 * np.abs(p - q).sum(-1)


def flat(case: Case):
    """The case's function over arrays in a row, their specs, and what makes them."""
    function, rows = case.make()
    structure = jax.tree.structure(rows(4))
    takes_dict = isinstance(rows(4), dict)

    def over_arrays(*arrays):
        nested = jax.tree.unflatten(structure, arrays)
        return function(nested) if takes_dict else function(*nested)

    specs = [TensorSpec(str(i), a.dtype.name, (None, *a.shape[1:])) for i, a in enumerate(jax.tree.leaves(rows(4)))]
    return over_arrays, specs, lambda n: jax.tree.leaves(rows(n))


def truth(case: Case) -> np.ndarray:
    """JAX's distributions of 20 rows, which have to lie apart: rows closer together agree with anything."""
    function, rows = case.make()
    expected = probabilities(np.asarray(call(jax.jit(function), rows(ROWS))))
    assert expected.shape == (ROWS, CLASSES)
    apart = total_variation(expected[:, None], expected[None])[np.triu_indices(ROWS, 1)]
    assert np.median(apart) >= LEAST_SPREAD
    return expected


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CASES if n not in NATIVE]
)
def test_a_case_in_onnx_is_the_case_in_jax(name, tmp_path):
    case = CASES[name]
    function, specs, rows = flat(case)
    spec = write_onnx(function, specs, tmp_path / "model.onnx", opset=18, model_name=name)
    assert spec == TensorSpec("output", "float32", (None, CLASSES))
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    expected = truth(case)
    for batch in (1, 4, 7):
        # Against the first rows of a larger batch, so that rows that depend on those beside them would show too.
        logits = session.run(None, {s.name: a for s, a in zip(specs, rows(batch), strict=True)})[0]
        assert total_variation(probabilities(logits), expected[:batch]).max() < case.tolerance


@pytest.mark.parametrize("name", NATIVE)
def test_a_case_without_an_operator_is_refused_by_name(name, tmp_path):
    function, specs, _ = flat(CASES[name])
    with pytest.raises(ExportError, match=NATIVE[name]) as caught:
        write_onnx(function, specs, tmp_path / "model.onnx", opset=18, model_name="the net")
    assert "the net" in str(caught.value)
    assert not (tmp_path / "model.onnx").exists()
    assert len(truth(CASES[name])) == ROWS


def test_there_are_87_cases():
    assert len(CASES) == 87
    assert set(CASES) >= QUICK | set(NATIVE)


def test_rows_of_a_case_are_the_same_each_time_and_a_longer_batch_begins_with_a_shorter_one():
    for case in (CASES["plain"], CASES["multi_in"], CASES["dict_in"]):
        _, rows = case.make()
        for few, many in zip(jax.tree.leaves(rows(3)), jax.tree.leaves(rows(ROWS)), strict=True):
            np.testing.assert_array_equal(few, many[:3])
