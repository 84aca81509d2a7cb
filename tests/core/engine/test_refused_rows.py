"""A row that the model refuses is that row's fault: named, skipped or recorded, and never the end of a run."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from array_framework import Pair, pairs  # noqa: F401 a fixture
from onnx import TensorProto, helper, numpy_helper
from onnx_files import WEIGHTS, expected, node, rows

import fo_onnx as fo

REFUSED = [0, 7, 300, 301, 302, 999]


def refusing(x):
    """Refuses rows that begin with more than 100, as an estimator refuses an unknown category."""
    if (x[:, 0] > 100).any():
        raise ValueError(f"unknown category {x[:, 0].max():g}")
    return x @ WEIGHTS


def data(refused=REFUSED) -> np.ndarray:
    x = rows(1000)
    x[refused, 0] = 101
    return x


def require_all_but_refused(dists: fo.Distributions, x: np.ndarray) -> None:
    taken = np.setdiff1d(np.arange(1000), REFUSED)
    assert dists.ids.tolist() == taken.tolist()
    assert dists.meta["rows"] == {"written": 994, "skipped": 6, "quarantined": 0}
    np.testing.assert_allclose(dists.probs, expected(x[taken]), atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_natively(batch_size):
    x = data()
    require_all_but_refused(fo.generate(refusing, x, on_error="skip", output="logits", batch_size=batch_size), x)


def test_natively_by_name():
    with pytest.raises(fo.DataError, match=r"row 300 \(id 300\): .*unknown category 101") as caught:
        fo.generate(refusing, data([300, 301]), output="logits")
    assert len(caught.value.finished) == 300


def test_natively_as_a_record(tmp_path):
    fo.generate(refusing, data(), on_error="record", output="logits", out=tmp_path / "d.parquet")
    lines = [json.loads(line) for line in (tmp_path / "d.parquet.errors.jsonl").read_text().splitlines()]
    assert [line["position"] for line in lines] == REFUSED
    assert all("unknown category 101" in line["reason"] for line in lines)


def refusing_pair():
    """An original and a file that refuse the same rows."""
    tail = (
        node("Slice", ["x", "start", "stop", "one"], ["column"]),
        node("Cast", ["column"], ["index"], to=TensorProto.INT64),
        node("GatherElements", ["table", "index"], ["row"], axis=0),
        node("Mul", ["row", "zero"], ["none"]),
        node("Add", ["z", "none"], ["out"]),
    )
    table = {"table": np.zeros((101, 1), np.float32), "zero": np.zeros(1, np.float32), "one": np.array([1]), "start": np.array([0]),
             "stop": np.array([1])}  # fmt: skip
    return Pair(refusing, tail, "out", table)


@pytest.mark.usefixtures("pairs")
def test_where_the_exported_file_refuses_them_too():
    """ONNX fails on the whole batch; the original says which rows it refuses, and the others go on in ONNX."""
    x = data()
    dists = fo.generate(refusing_pair(), x, on_error="skip")
    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.meta["runner"]["switched_at"] is None
    require_all_but_refused(dists, x)


@pytest.fixture
def table(tmp_path):
    """A file that looks ids up in a table of 20 rows, and adds them up."""
    nodes = [node("Gather", ["table", "ids"], ["e"]), node("ReduceSum", ["e", "axes"], ["z"], keepdims=0)]
    values = {"table": np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32), "axes": np.array([1])}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 5])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 4])], [numpy_helper.from_array(v, k) for k, v in values.items()],
    )  # fmt: skip
    path = tmp_path / "table.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_a_file_on_its_own(table):
    ids = np.random.default_rng(0).integers(0, 20, (1000, 5))
    ids[[300, 999], 2] = 20
    dists = fo.generate(table, ids, on_error="skip", output="logits")
    assert dists.ids.tolist() == np.setdiff1d(np.arange(1000), [300, 999]).tolist()
    with pytest.raises(fo.DataError, match=r"row 300 \(id 300\): .*out of data bounds"):
        fo.generate(table, ids, output="logits")


def test_a_model_that_breaks_is_not_the_rows_fault():
    """Every row fails, and so does one that has run before."""
    calls = []

    def breaking(x):
        calls.append(len(x))
        if sum(calls) > 1500:
            raise OSError("the server is gone")
        return x @ WEIGHTS

    with pytest.raises(fo.RunError, match="the server is gone"):
        fo.generate(breaking, rows(5000), on_error="skip", output="logits")


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("count", [15, 16, 40, 255, 256, 500])
def test_the_first_rows_may_be_those_that_are_refused(count):
    x = data(np.arange(count))
    for model in (refusing, refusing_pair()):
        dists = fo.generate(model, x, on_error="skip", output="logits", progress=False)
        assert dists.ids.tolist() == list(range(count, 1000))
        np.testing.assert_allclose(dists.probs, expected(x[count:]), atol=1e-6)


def test_data_that_the_model_does_not_take_at_all():
    with pytest.raises(fo.DataError, match="the model does not take the data"):
        fo.generate(refusing, np.full((1000, 6), 101, np.float32), on_error="skip", output="logits")


def test_predict_names_the_row():
    with fo.Engine(refusing, output="logits") as engine:
        assert engine.predict(rows(10)).shape == (10, 4)
        with pytest.raises(fo.DataError, match="row 3: .*unknown category 101"):
            engine.predict(data([3]))
