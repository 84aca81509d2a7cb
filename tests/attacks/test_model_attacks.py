"""Hostile .onnx files: each ends in an error of fo-onnx that names the file, soon, and without taking the memory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from bounded import run_bounded
from onnx import TensorProto, helper, numpy_helper
from onnx_files import linear, node, rows

import fo_onnx as fo

SPEC = {
    "inputs": [{"name": "x", "dtype": "float32", "shape": [None, 6]}],
    "output": {"name": "z", "dtype": "float32", "shape": [None, 4]},
    "output_kind": None, "classes": 4, "class_names": None, "temperature": 1.0, "name": "m", "framework": "torch",
}  # fmt: skip
Attack = Callable[[Path], None]


def changed(path: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    proto = onnx.load(linear(path))
    change(proto)
    path.write_bytes(proto.SerializeToString())


def with_functions(path: Path, *functions: onnx.FunctionProto, first: str = "f0") -> None:
    def change(proto: onnx.ModelProto) -> None:
        proto.opset_import.add(domain="own", version=1)
        proto.functions.extend(functions)
        proto.graph.node[0].output[0] = "y"
        proto.graph.node.append(helper.make_node(first, ["y"], ["z"], domain="own"))

    changed(path, change)


def function(name: str, *nodes: onnx.NodeProto) -> onnx.FunctionProto:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["a"], ["b"], list(nodes), opsets)


def call(name: str, *, domain: str = "own", inputs: tuple[str, ...] = ("a",), output: str = "b") -> onnx.NodeProto:
    return helper.make_node(name, list(inputs), [output], domain=domain)


def laughs(path: Path) -> None:
    """Sixty functions, each of which calls the next one twice."""
    twice = [function(f"f{i}", call(f"f{i + 1}", output="c"), call(f"f{i + 1}", inputs=("c",))) for i in range(60)]
    with_functions(path, *twice, function("f60", call("Relu", domain="")))


def laughs_in_subgraphs(path: Path) -> None:
    """The calls stand in the branches of an If."""

    def branch(i: int) -> onnx.GraphProto:
        info = helper.make_tensor_value_info("c", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(f"f{i + 1}", ["a"], ["c"], domain="own")], "branch", [], [info])

    def both(i: int) -> onnx.FunctionProto:
        yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
        return function(
            f"f{i}", yes, helper.make_node("If", ["yes"], ["b"], then_branch=branch(i), else_branch=branch(i))
        )

    with_functions(path, *(both(i) for i in range(60)), function("f60", call("Relu", domain="")))


def deep_functions(path: Path) -> None:
    with_functions(
        path, *(function(f"f{i}", call(f"f{i + 1}")) for i in range(5000)), function("f5000", call("Relu", domain=""))
    )


def deep_subgraphs(path: Path) -> None:
    """Graphs in attributes of nodes in graphs …, written by hand, since no library writes them."""

    def field(number: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    graph = b""
    for _ in range(5000):
        graph = field(1, field(5, field(6, graph)))
    linear(path)
    path.write_bytes(path.read_bytes() + field(7, graph))


def sparse(path: Path) -> None:
    """One number in a tensor of 10^12."""

    def change(proto: onnx.ModelProto) -> None:
        values = numpy_helper.from_array(np.ones(1, np.float32), "s")
        tensor = helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64)), [10**12])
        proto.graph.sparse_initializer.append(tensor)

    changed(path, change)


def external(path: Path, location: str = "data", **entries: str) -> None:
    def change(proto: onnx.ModelProto) -> None:
        tensor = proto.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=value)

    path.with_name("data").write_bytes(bytes(6 * 4 * 4))
    changed(path, change)


def external_in_a_default(path: Path) -> None:
    """A tensor outside of the folder as an attribute's default value in a function, where onnx does not look."""
    body = function("f0", call("Relu", domain=""))
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    body.attribute_proto.append(helper.make_attribute("v", tensor))
    with_functions(path, body)


def metadata(path: Path, provenance: object = None, **spec: object) -> None:
    said = {"version": 1, "spec": SPEC | spec, "provenance": {} if provenance is None else provenance}
    with_metadata(path, json.dumps(said))


def with_metadata(path: Path, text: str) -> None:
    def change(proto: onnx.ModelProto) -> None:
        proto.metadata_props.add(key="fo_onnx", value=text)

    changed(path, change)


def labels(path: Path, names: list[str]) -> None:
    """Maps from classes to scores."""
    zipped = helper.make_node("ZipMap", ["z"], ["m"], domain="ai.onnx.ml", classlabels_strings=names)

    def change(proto: onnx.ModelProto) -> None:
        proto.opset_import.add(domain="ai.onnx.ml", version=3)
        proto.graph.node.append(zipped)
        element = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        proto.graph.output[0].CopyFrom(helper.make_value_info("m", helper.make_sequence_type_proto(element)))

    changed(path, change)


def declared(path: Path, columns: int = 4, batch: int | str = "n") -> None:
    linear(path, shape=[batch, columns], batch=batch)


def loop(path: Path) -> None:
    """Two nodes that feed each other, in a file that the checker passes over, since its output has no shape."""

    def change(proto: onnx.ModelProto) -> None:
        proto.graph.node.extend([node("Identity", ["q"], ["y"]), node("Identity", ["y"], ["q"])])
        proto.graph.output[0].name = "y"
        proto.graph.output[0].type.tensor_type.ClearField("shape")

    changed(path, change)


def no_utf8(path: Path) -> None:
    linear(path, node("Identity", ["z"], ["yyyyyyyy"]), output="yyyyyyyy")
    path.write_bytes(path.read_bytes().replace(b"yyyyyyyy", b"yyyyyyy\xff"))


def sparse_file(path: Path) -> None:
    """4 GB of zeros that take no room on the disk."""
    with path.open("wb") as file:
        file.truncate(2**32)


def dims(path: Path, shape: list[int]) -> None:
    """A tensor that says that it is of another shape than its numbers are."""

    def change(proto: onnx.ModelProto) -> None:
        proto.graph.initializer[0].ClearField("dims")
        proto.graph.initializer[0].dims.extend(shape)

    changed(path, change)


def type_that_is_none(path: Path) -> None:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.input[0].type.tensor_type.elem_type = 99

    changed(path, change)


ATTACKS: dict[str, Attack] = {
    "functions that call each other twice": laughs,
    "such calls in branches": laughs_in_subgraphs,
    "a function that calls itself": lambda p: with_functions(p, function("f0", call("f0"))),
    "functions 5,000 deep": deep_functions,
    "graphs 5,000 deep": deep_subgraphs,
    "a sparse tensor of 10^12": sparse,
    "a tensor of 10^12": lambda p: dims(p, [10**6, 10**6]),
    "a tensor of a negative axis": lambda p: dims(p, [-6, -4]),
    "a link to /dev/zero": lambda p: p.symlink_to("/dev/zero"),
    "a pipe": os.mkfifo,
    "4 GB of zeros": sparse_file,
    "external data with a NUL": lambda p: external(p, "w\0x"),
    "external data with 5,000 letters": lambda p: external(p, "w" * 5000),
    "external data anywhere": lambda p: external(p, "/etc/passwd"),
    "external data above": lambda p: external(p, "x/../../secret"),
    "external data in memory": lambda p: external(p, "*/_ORT_MEM_ADDR_/*", offset="4096", length="96"),
    "external data that is the folder": lambda p: external(p, "."),
    "external data in an attribute's default": external_in_a_default,
    "external data from before the file": lambda p: external(p, offset="-8"),
    "external data from behind the file": lambda p: external(p, offset="90"),
    "external data longer than the file": lambda p: external(p, length=str(10**12)),
    "external data at no number": lambda p: external(p, offset="1e3"),
    "external data at a number of 10,000 digits": lambda p: external(p, offset="9" * 10_000),
    "metadata 100,000 lists deep": lambda p: with_metadata(p, "[" * 100_000),
    "metadata that are a list": lambda p: with_metadata(p, "[1]"),
    "metadata of a number of 10,000 digits": lambda p: with_metadata(p, '{"version": ' + "9" * 10_000 + "}"),
    "10^12 classes": lambda p: metadata(p, classes=10**12),
    "true classes": lambda p: metadata(p, classes=True),
    "two names for four classes": lambda p: metadata(p, class_names=["a", "b"]),
    "equal names": lambda p: metadata(p, class_names=["a"] * 4),
    "names that are numbers": lambda p: metadata(p, class_names=[1, 2, 3, 4]),
    "half a character as a name": lambda p: metadata(p, class_names=["\ud800", "b", "c", "d"]),
    "an output of no known kind": lambda p: metadata(p, output_kind="xyz"),
    "a batch of 10^12 in the metadata": lambda p: metadata(
        p, inputs=[{"name": "x", "dtype": "float32", "shape": [10**12, 6]}]
    ),
    "an axis of -1": lambda p: metadata(p, inputs=[{"name": "x", "dtype": "float32", "shape": [None, -1]}]),
    "a dtype that is none": lambda p: metadata(p, inputs=[{"name": "x", "dtype": "O,O", "shape": [None, 6]}]),
    "no input": lambda p: metadata(p, inputs=[]),
    "another input": lambda p: metadata(p, inputs=[{"name": "y", "dtype": "float32", "shape": [None, 6]}]),
    "another output": lambda p: metadata(p, output={"name": "q", "dtype": "float32", "shape": [None, 4]}),
    "a temperature that is none": lambda p: metadata(p, temperature=float("nan")),
    "a provenance that is text": lambda p: metadata(p, provenance="x"),
    "a comparison that is none": lambda p: metadata(p, provenance={"parity": {"max_tv": "x"}}),
    "equal labels of a map": lambda p: labels(p, ["a"] * 4),
    "10^12 columns": lambda p: declared(p, columns=10**12),
    "a batch of 10^9": lambda p: declared(p, batch=10**9),
    "a loop": loop,
    "a name that is no UTF-8": no_utf8,
    "a type that is none": type_that_is_none,
}


SAID = {
    "functions": "its graph unfolds to|functions deep",
    "such calls": "its graph unfolds to",
    "a function": "calls itself",
    "sparse": "would unfold to .* FO_ONNX_MAX_UNFOLD",
    "external data": "its external data",
    "metadata": "its fo-onnx metadata is damaged",
    "/dev/zero": "a device; a regular file was expected",
    "10^12 columns": "more than memory holds",
    "no UTF-8": "a name in it is no UTF-8",
}
"""What is said where onnx or ONNX Runtime might refuse a file too, later or by chance."""


@pytest.mark.parametrize("what", ATTACKS)
def test_a_hostile_model_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "hostile.onnx"
    ATTACKS[what](path)

    outcome = run_bounded(lambda: fo.generate(path, rows(20), progress=False, device="cpu"))
    outcome.require_refusal(path)
    for part, said in SAID.items():
        assert part not in what or re.search(said, outcome.message, re.DOTALL), outcome


def test_millions_of_empty_notes_take_no_time(tmp_path: Path) -> None:
    def change(proto: onnx.ModelProto) -> None:
        for _ in range(2_000_000):
            proto.graph.metadata_props.add()

    changed(path := tmp_path / "m.onnx", change)

    outcome = run_bounded(lambda: fo.OnnxModel.open(path))
    outcome.require_bounds(gigabytes=0.6)
    assert outcome.error is None, outcome


def test_notes_may_be_no_utf8(tmp_path: Path) -> None:
    def change(proto: onnx.ModelProto) -> None:
        proto.graph.node[0].metadata_props.add(key="yyyyyyyy", value="yyyyyyyy")
        proto.graph.node[0].doc_string = "yyyyyyyy"
        proto.graph.input[0].type.denotation = "yyyyyyyy"

    changed(path := tmp_path / "m.onnx", change)
    path.write_bytes(path.read_bytes().replace(b"yyyyyyyy", b"yyyyyyy\xff"))

    assert len(fo.generate(path, rows(5), progress=False, device="cpu")) == 5


def test_limits_are_raised_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that is meant to be large, and the one that is not, under other limits."""
    path = tmp_path / "m.onnx"
    twice = [function(f"f{i}", call(f"f{i + 1}", output="c"), call(f"f{i + 1}", inputs=("c",))) for i in range(4)]
    with_functions(path, *twice, function("f4", call("Relu", domain="")))
    assert len(fo.generate(path, rows(5), progress=False, device="cpu")) == 5
    monkeypatch.setenv("FO_ONNX_MAX_GRAPH_NODES", "16")  # 2**4, and the product before them
    with pytest.raises(fo.ModelError, match="unfolds to 17 nodes, more than the 16 .* FO_ONNX_MAX_GRAPH_NODES"):
        fo.OnnxModel.open(path)
    monkeypatch.setenv("FO_ONNX_MAX_GRAPH_NODES", "17")
    fo.OnnxModel.open(path)
