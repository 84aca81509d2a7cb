"""Runs on the CPU use fused graphs where these give the same rows, and say so; the file stays as it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fused_graphs import model_of

import fo_onnx as fo
from fo_onnx.conversion import fuse_file
from fo_onnx.conversion.heads import add_head, remove_head
from fo_onnx.distributions.probabilities import softmax, total_variation
from fo_onnx.fusions.fused_graph import FusedGraph, fuse_graph
from fo_onnx.models.onnx_model import load_onnx

FEATURES, CLASSES, ROWS = 6, 4, 40
RNG = np.random.default_rng(0)
X = RNG.standard_normal((ROWS, FEATURES)).astype(np.float32)
WEIGHTS = RNG.standard_normal((FEATURES, CLASSES)).astype(np.float32)
GELU = "a = Div(x, root)  e = Erf(a)  s = Add(e, one)  h = Mul(half, s)  g = Mul(x, h)"


def gelu_file(folder: Path, *, external: bool = False) -> Path:
    text = f"(float[n, {FEATURES}] x) => (float[n, {CLASSES}] z) {{ {GELU}  z = MatMul(g, w) }}"
    model = model_of(text, root=np.sqrt(2), one=1.0, half=0.5, w=WEIGHTS)
    path = folder / "m.onnx"
    onnx.save_model(model, path, save_as_external_data=external, location="m.data", size_threshold=64)
    return path


def expected() -> np.ndarray:
    """Return the distributions by numpy and the error function of ONNX's reference."""
    import math

    bell = np.vectorize(math.erf)(X.astype(np.float64) / np.sqrt(2))
    return softmax(X * 0.5 * (1 + bell) @ WEIGHTS.astype(np.float64))


@pytest.mark.parametrize("external", [False, True], ids=["one file", "external data"])
def test_a_file_is_run_fused_and_stays_as_it_is(tmp_path: Path, external: bool) -> None:
    path = gelu_file(tmp_path, external=external)
    before = path.read_bytes()
    dists = fo.generate(path, X, output="logits", keep_logits=True, batch_size=7)
    assert dists.meta["engine"]["fusions"] == {"Gelu": 1}
    assert dists.meta["engine"]["opset"] == dists.meta["model"]["opset"] == 18
    assert total_variation(expected(), dists.probs).max() < 1e-6
    np.testing.assert_allclose(softmax(dists.logits), dists.probs, atol=1e-6)
    assert path.read_bytes() == before


def test_equal_runs_are_equal_in_every_bit(tmp_path: Path) -> None:
    path = gelu_file(tmp_path)
    first, second = (fo.generate(path, X, output="logits") for _ in range(2))
    assert first.probs.tobytes() == second.probs.tobytes()


def test_an_output_transform_takes_the_place_of_the_head(tmp_path: Path) -> None:
    dists = fo.generate(gelu_file(tmp_path), X, output_transform=softmax)
    assert dists.meta["engine"]["fusions"] == {"Gelu": 1}
    assert total_variation(expected(), dists.probs).max() < 1e-6


def test_a_graph_that_is_edited_has_no_fused_nodes_any_more(tmp_path: Path) -> None:
    loaded = load_onnx(gelu_file(tmp_path))
    loaded = replace(loaded, fused=fuse_graph(loaded.proto))
    spec = replace(loaded.model.spec, output_kind="logits")
    assert add_head(loaded, spec).fused is None
    assert remove_head(loaded).fused is None


def test_one_with_nothing_to_fuse(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model_of(f"(float[n, {FEATURES}] x) => (float[n, {CLASSES}] z) {{ z = MatMul(x, w) }}", w=WEIGHTS), path)
    dists = fo.generate(path, X, output="logits")
    assert dists.meta["engine"]["fusions"] == {}


def differ(model: onnx.ModelProto) -> FusedGraph | None:
    """Fuse, and make one constant another."""
    fused = fuse_graph(model)
    for tensor in [] if fused is None else fused.model.graph.initializer:
        if tensor.name == "w":
            tensor.raw_data = (WEIGHTS * 1.01).tobytes()
    return fused


def fail(model: onnx.ModelProto) -> FusedGraph | None:
    """Fuse, and name an operator that ONNX Runtime does not have."""
    fused = fuse_graph(model)
    for node in [] if fused is None else fused.model.graph.node:
        node.op_type = "NoSuchGelu" if node.op_type == "Gelu" else node.op_type
    return fused


@pytest.mark.parametrize(
    ("fuse", "reason"), [(differ, "differ by a total variation of"), (fail, "NoSuchGelu")], ids=["differs", "refused"]
)
def test_one_that_is_not_the_same_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fuse: object, reason: str
) -> None:
    monkeypatch.setattr(fuse_file, "fuse_graph", fuse)
    with caplog.at_level("INFO", "fo_onnx.engine"):
        dists = fo.generate(gelu_file(tmp_path), X, output="logits")
    assert dists.meta["engine"]["fusions"] == {}
    assert total_variation(expected(), dists.probs).max() < 1e-6
    assert any("without fused nodes" in r.message and reason in r.message for r in caplog.records)
