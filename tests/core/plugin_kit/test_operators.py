"""Every node is looked up in ONNX's own list, since converters do not always raise on what they lack."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from fo_onnx.errors import ExportError
from fo_onnx.plugin_kit.graph_checks import require_known_operators, unknown_operators


def graph(*nodes):
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 2]) for n in "xy")
    return helper.make_graph(list(nodes), "g", [x], [y])


def model(*nodes, opset=18, domains=(), functions=()):
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph(*nodes), opset_imports=imports, functions=list(functions))


def node(op, domain=""):
    return helper.make_node(op, ["x"], ["y"], domain=domain)


@pytest.mark.parametrize(
    ("proto", "unknown"),
    [
        (model(node("Softmax"), node("Relu", "ai.onnx")), []),
        (model(node("Erfinv"), node("Erfinv")), ["Erfinv (opset 18)"]),
        (model(node("Gelu")), ["Gelu (opset 18)"]),
        (model(node("Gelu"), opset=20), []),
        (model(node("Thing", "somebody"), domains=["somebody"]), ["somebody.Thing (opset 1)"]),
        (model(node("Thing", "nobody")), ["nobody.Thing (opset None)"]),
        (model(node("Gelu", "com.microsoft"), domains=["com.microsoft"]), []),
        (model(node("Scaler", "ai.onnx.ml"), domains=["ai.onnx.ml"]), []),
    ],
)
def test_unknown_operators(proto, unknown):
    assert unknown_operators(proto) == unknown


def test_nodes_within_nodes():
    branch = helper.make_node("If", ["x"], ["y"], then_branch=graph(node("Relu")), else_branch=graph(node("Erfinv")))
    assert unknown_operators(model(branch)) == ["Erfinv (opset 18)"]


def test_a_models_own_functions():
    own = helper.make_function("mine", "Twice", ["x"], ["y"], [node("Relu")], [helper.make_opsetid("", 18)])
    assert unknown_operators(model(node("Twice", "mine"), domains=["mine"], functions=[own])) == []


def test_the_error_names_all():
    with pytest.raises(ExportError) as caught:
        require_known_operators(model(node("Erfinv"), node("Lgamma")), "tf2onnx", "net")
    assert (
        str(caught.value)
        == "tf2onnx cannot convert net: ONNX has no operator for Erfinv (opset 18), Lgamma (opset 18)."
    )
