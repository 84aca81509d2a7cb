"""Einstein sums of two tensors become one matrix product; all others are converted as tf2onnx does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
from fo_onnx_tensorflow.export import write_onnx  # noqa: E402

from fo_onnx.contracts.spec import TensorSpec  # noqa: E402

LENGTHS = {"b": 3, "t": 5, "s": 4, "n": 2, "h": 6, "d": 7, "e": 8, "f": 9, "B": 3, "T": 5, "D": 4}
PRODUCTS = ["btnh,bsnh->bnts", "bsnh,btnh->bnts", "bnts,bsnh->btnh", "bsnh,bnts->bnht", "bhs,bdh->bsd"]
"""Scores and answers of attention as Keras and flax have them, and products that are transposed on all sides."""
DENSE = ["btd,dnh->btnh", "btnh,nhd->btd", "btd,df->btf", "bfd,dn->bnf"]


def convert(equation: str, folder: Path, *, is_dense: bool) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the operators of the graph, what it gives, and what numpy gives; the second tensor of a dense layer is weights."""
    rng = np.random.default_rng(0)
    first, second = (
        rng.standard_normal([LENGTHS[x] for x in t]).astype(np.float32) for t in equation.split("->")[0].split(",")
    )
    open_axes = [tuple(None if x in "bB" else LENGTHS[x] for x in t) for t in equation.split("->")[0].split(",")]
    specs = [TensorSpec(name, "float32", shape) for name, shape in zip("ab", open_axes, strict=True)]
    if is_dense:
        write_onnx(lambda a: tf.einsum(equation, a, second), specs[:1], folder / "m.onnx", opset=18, model_name="net")
    else:
        write_onnx(lambda a, b: tf.einsum(equation, a, b), specs, folder / "m.onnx", opset=18, model_name="net")
    feed = {"a": first} if is_dense else {"a": first, "b": second}
    session = ort.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(folder / "m.onnx").graph.node]
    return operators, session.run(None, feed)[0], np.einsum(equation, first, second)


@pytest.mark.parametrize("equation", PRODUCTS)
def test_a_product_of_two_tensors(tmp_path: Path, equation: str) -> None:
    operators, values, expected = convert(equation, tmp_path, is_dense=False)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert operators.count("MatMul") == 1
    assert set(operators) <= {"MatMul", "Transpose", "Identity"}


@pytest.mark.parametrize("equation", DENSE)
def test_a_product_with_weights(tmp_path: Path, equation: str) -> None:
    operators, values, expected = convert(equation, tmp_path, is_dense=True)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    assert "Shape" not in operators


@pytest.mark.parametrize(
    "equation", ["bt,bts->bs", "btd,bsd->bt", "bt,bs->bts", "btt,bts->bs", "btd,btd->btd", "BTd,BDd->BTD"]
)
def test_other_sums(tmp_path: Path, equation: str) -> None:
    _, values, expected = convert(equation, tmp_path, is_dense=False)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_a_product_with_weights_behind_a_reshape(tmp_path: Path) -> None:
    """tf2onnx joins reshapes, so that those of the product must not count on the axes of what they are given."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 5, 2, 6)).astype(np.float32)
    weights = rng.standard_normal((2, 6, 7)).astype(np.float32)

    def function(a: tf.Tensor) -> tf.Tensor:
        return tf.einsum("btnh,nhd->btd", tf.reshape(a[None] * 2.0, (-1, 5, 2, 6)), weights)

    spec = TensorSpec("a", "float32", (None, 5, 2, 6))
    write_onnx(function, [spec], tmp_path / "m.onnx", opset=18, model_name="net")
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    expected = np.einsum("btnh,nhd->btd", x * 2, weights)
    np.testing.assert_allclose(session.run(None, {"a": x})[0], expected, rtol=1e-4, atol=1e-5)
