"""The benchmark of a model: its paths are checked, then timed in turns; what fails shows its error beside the others."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from array_framework import Pair, PairExporter, pairs  # noqa: F401 a fixture
from onnx_files import WEIGHTS, linear, rows

from fo_onnx.bench import BenchError, run
from fo_onnx.contracts.exporter import NativePath
from fo_onnx.plugin_kit.paths import in_batches

X = rows(512)


def names(paths):
    """Names of paths, without what is there only where its package is installed."""
    return [path.name for path in paths if path.name != "openvino"]


def test_a_file(tmp_path):
    result = run(linear(tmp_path / "m.onnx"), X, turns=2, batch_sizes=(16, 64))
    assert names(result.paths) == ["onnxruntime", "fo-onnx"]
    loop, own = result.path("onnxruntime"), result.path("fo-onnx")
    assert len(loop.seconds) == len(own.seconds) == 2
    assert loop.batch_size in (16, 64)
    assert set(loop.by_batch) == {"16", "64"}
    assert own.batch_size is None
    assert max(loop.max_tv, own.max_tv) < 1e-6
    assert result.rows % 64 == 0
    assert result.export_s is None
    assert result.flops_per_row == pytest.approx(2 * 6 * 4, rel=0.5)  # the head beside it
    assert result.environment["cores"] >= 1
    assert result.null is not None


def test_a_function_runs_natively_alone():
    result = run(lambda x: x @ WEIGHTS, X, turns=1, rows=256)
    assert names(result.paths) == ["callable"]
    assert result.rows == 256
    assert "no graph that could become ONNX" in result.not_tried["fo-onnx"]


@pytest.fixture
def native_paths(pairs, monkeypatch):  # noqa: F811 the fixture
    """Lets `Pair` offer paths: a right one, one that fails, one that computes something else, one of another shape."""

    def paths(exporter, model, example, options, output):
        def path(name, step):
            @contextlib.contextmanager
            def open_path():
                yield in_batches(step)

            return NativePath(name, open_path)

        def fail(batch):
            raise ValueError("no compiler")

        return [
            path("plain", lambda batch: batch["0"] @ WEIGHTS),
            path("broken", fail),
            path("other", lambda batch: batch["0"] @ -WEIGHTS),
            path("short", lambda batch: (batch["0"] @ WEIGHTS)[:, :2]),
        ]

    monkeypatch.setattr(PairExporter, "native_paths", paths, raising=False)


@pytest.mark.usefixtures("native_paths")
def test_a_path_that_fails_shows_its_error_beside_the_others():
    result = run(Pair(), X, turns=1, rows=128)
    assert names(result.paths) == ["plain", "broken", "other", "short", "onnxruntime", "fo-onnx"]
    errors = {p.name: p.error for p in result.paths if p.error is not None}
    assert errors["broken"] == "ValueError: no compiler"
    assert "differ from the model's by a total variation" in errors["other"]
    assert "shape" in errors["short"]
    assert names(result.timed) == ["plain", "onnxruntime", "fo-onnx"]
    assert result.export_s > 0


@pytest.mark.usefixtures("native_paths")
def test_paths_by_name():
    result = run(Pair(), X, turns=1, rows=128, paths=["fo-onnx", "plain"])
    assert names(result.paths) == ["plain", "fo-onnx"]
    with pytest.raises(BenchError, match="there is no path 'TensorRT'; this model has plain, .*fo-onnx"):
        run(Pair(), X, turns=1, paths=["TensorRT"])


def test_no_rows_and_too_few_rows():
    with pytest.raises(BenchError, match="needs rows, and the data have none"):
        run(lambda x: x @ WEIGHTS, X[:0])
    with pytest.raises(BenchError, match="over 1000 rows was asked for, and the data have 512"):
        run(lambda x: x @ WEIGHTS, X, rows=1000)
    with pytest.raises(ValueError, match="turns"):
        run(lambda x: x @ WEIGHTS, X, turns=0)


def test_the_data_stay_as_they_are():
    x = np.array(X)
    run(lambda rows: rows.__imul__(2) @ WEIGHTS, x, turns=1, rows=64)
    np.testing.assert_array_equal(x, X)
