"""Files in int8: which layers stay in float32, what is kept in the cache, and what a row depends on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_files import convolutional, images, linear, node, rows, run_in_onnx_runtime, write_graph

from fo_onnx.contracts.options import FLOAT_SHARES
from fo_onnx.conversion import quantize as module
from fo_onnx.conversion.quantize import float_nodes, quantize
from fo_onnx.errors import ExportError
from fo_onnx.models.onnx_model import load_onnx
from fo_onnx.store import files

CALIBRATION = {"0": images(64)}


def named(nodes: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    for name, each in nodes.items():
        each.name = name
    return list(nodes.values())


@pytest.fixture
def graph(tmp_path) -> onnx.ModelProto:
    """Two layers beside each other first, four in a row after them, a head in another branch, and a softmax."""
    nodes = named({
        "left": node("MatMul", ["x", "w"], ["l"]), "relu": node("Relu", ["l"], ["l2"]),
        "right": node("MatMul", ["x", "w"], ["r"]), "sum": node("Add", ["l2", "r"], ["s"]),
        "a": node("MatMul", ["s", "w"], ["a1"]), "b": node("MatMul", ["a1", "w"], ["b1"]),
        "both": node("MatMul", ["b1", "t"], ["m"]), "c": node("MatMul", ["m", "w"], ["c1"]),
        "transposed": node("Transpose", ["x"], ["t"]),
        "softmax": node("Softmax", ["c1"], ["p"]), "last": node("MatMul", ["p", "w"], ["z"]),
        "other": node("MatMul", ["b1", "w"], ["y"]),
    })  # fmt: skip
    square = (onnx.TensorProto.FLOAT, [4, 4])
    path = write_graph(
        tmp_path / "g.onnx", nodes, {"x": square}, {"z": square, "y": square}, {"w": np.eye(4, dtype=np.float32)}
    )
    return onnx.load(path)


def test_the_last_layers_stay_in_float32(graph):
    assert float_nodes(graph, "int8") == ["last", "other"]


def test_the_first_layers_stay_with_what_is_fused_with_them(graph):
    assert float_nodes(graph, "int8-edges") == ["left", "relu", "right", "last", "other"]


def test_what_lies_between_layers_can_stay_in_float32(tmp_path):
    loaded = load_onnx(convolutional(tmp_path / "net.onnx"))
    whole, layers = (quantize(loaded, name, CALIBRATION, tmp_path) for name in ("int8", "int8-layers"))
    rounded = [sum(n.op_type == "QuantizeLinear" for n in each.proto.graph.node) for each in (whole, layers)]
    # Around the pools of the whole net there are none in the other.
    assert rounded[1] < rounded[0]
    pool = next(n for n in layers.proto.graph.node if n.op_type == "GlobalAveragePool")
    producers = {out: n.op_type for n in layers.proto.graph.node for out in n.output}
    assert producers[pool.input[0]] == "Relu"


def test_everything_before_the_deepest_of_a_share_stays(graph):
    # Of seven layers with weights, three: the products of two activations are none.
    assert float_nodes(graph, "int8-half") == ["left", "relu", "right", "sum", "a", "last", "other"]
    assert len(float_nodes(graph, "int8-eighth")) > len(float_nodes(graph, "int8-quarter")) > 7


def test_a_graph_without_layers_has_none(tmp_path):
    path = write_graph(
        tmp_path / "g.onnx", [node("Relu", ["x"], ["z"])], {"x": (1, ["n", 4])}, {"z": (1, ["n", 4])}, {}
    )
    assert all(float_nodes(onnx.load(path), name) == [] for name in FLOAT_SHARES)


def types(loaded) -> list[str]:
    return [n.op_type for n in loaded.proto.graph.node]


@pytest.mark.parametrize(("name", "rounded_to"), [("int8", np.uint8), ("int8-edges-signed", np.int8)])
def test_a_file_is_quantised_and_stays_as_it_is(tmp_path, name, rounded_to):
    loaded = load_onnx(convolutional(tmp_path / "net.onnx"))
    before = loaded.proto.SerializeToString()
    quantized = quantize(loaded, name, CALIBRATION, tmp_path)
    assert loaded.proto.SerializeToString() == before
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in quantized.proto.graph.initializer}
    points = {weights[n.input[2]].dtype for n in quantized.proto.graph.node if n.op_type == "QuantizeLinear"}
    assert points == {np.dtype(rounded_to)}
    # One scale per channel of a convolution in int8, of which there is one less without the first layer.
    scales = [weights[n.input[1]].shape for n in quantized.proto.graph.node if n.op_type == "DequantizeLinear"]
    assert scales.count((8,)) >= (2 if "edges" in name else 3)
    assert "Gemm" in types(quantized)


def test_a_row_in_int8_depends_on_its_input_alone(tmp_path):
    loaded = load_onnx(convolutional(tmp_path / "net.onnx"))
    path = tmp_path / "int8.onnx"
    quantize(loaded, "int8", CALIBRATION, tmp_path)
    x = images(40, seed=1)
    x[20:] *= 100  # a scale of the whole batch would change the others
    together, alone = run_in_onnx_runtime(path, x=x)[:20], run_in_onnx_runtime(path, x=x[:20])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_the_same_graph_and_rows_are_quantised_once(tmp_path, monkeypatch):
    loaded = load_onnx(convolutional(tmp_path / "net.onnx"))
    calls = []
    write = module._write_quantized
    monkeypatch.setattr(module, "_write_quantized", lambda *args: (calls.append(args[1]), write(*args))[1])

    def digest(calibration=CALIBRATION):
        with files.temporary_folder() as folder:
            return quantize(loaded, "int8", calibration, Path(folder)).model.sha256

    first = digest()
    assert digest() == first
    assert calls == ["int8"]
    # Without the cache it is made again, and is the same.
    monkeypatch.setenv("FO_ONNX_CACHE_GB", "0")
    assert digest() == first
    assert len(calls) == 2
    monkeypatch.delenv("FO_ONNX_CACHE_GB")
    # Other rows make another file.
    assert digest({"0": images(64, seed=1) * 3}) != first


def test_weights_in_another_file_are_quantised_too(tmp_path):
    path = convolutional(tmp_path / "net.onnx")
    apart = tmp_path / "apart.onnx"
    onnx.save(onnx.load(path), apart, save_as_external_data=True, location="apart.data", size_threshold=0)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = quantize(load_onnx(path), "int8", CALIBRATION, tmp_path / "a")
    split = quantize(load_onnx(apart), "int8", CALIBRATION, tmp_path / "b")
    x = images(8)
    one, two = (run_in_onnx_runtime(tmp_path / d / "int8.onnx", x=x) for d in "ab")
    np.testing.assert_array_equal(one, two)
    assert types(whole) == types(split)


def test_what_cannot_be_quantised_says_why(tmp_path, monkeypatch):
    loaded = load_onnx(linear(tmp_path / "linear.onnx"))
    with pytest.raises(ExportError, match="none of its layers can be quantised"):
        quantize(loaded, "int8", {"0": rows(64)}, tmp_path)
    monkeypatch.setattr(module, "LARGEST_BYTES", 10)
    with pytest.raises(ExportError, match="more than a quantised file can hold"):
        quantize(loaded, "int8", {"0": rows(64)}, tmp_path)
    monkeypatch.undo()
    broken = load_onnx(convolutional(tmp_path / "net.onnx"))
    broken.proto.graph.node[0].op_type = "Convolution"
    with pytest.raises(ExportError, match="quantising it failed: "):
        quantize(broken, "int8", CALIBRATION, tmp_path)
