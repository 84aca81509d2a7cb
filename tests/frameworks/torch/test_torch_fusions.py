"""A torch model's export runs with attention and GELU as one node each, and what is compared with the model is that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import fo_onnx as fo
from fo_onnx.conversion import prepare
from fo_onnx.distributions.probabilities import total_variation
from fo_onnx.fusions.fused_graph import FusedGraph, fuse_graph

torch = pytest.importorskip("torch")
X = np.random.default_rng(0).standard_normal((48, 12, 16)).astype(np.float32)
FUSIONS = {"Attention": 2, "Gelu": 2}


class Encoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classes = torch.nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classes(4 * self.encoder(x)).mean(1)


@pytest.fixture
def encoder() -> torch.nn.Module:
    torch.manual_seed(0)
    return Encoder().eval()


def truth(net: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        return torch.softmax(net(torch.from_numpy(X)).double(), 1).numpy()


def test_runs_are_fused_and_files_are_not(encoder: torch.nn.Module, tmp_path: Path) -> None:
    dists = fo.generate(encoder, X, runner="onnx")
    assert dists.meta["engine"]["fusions"] == FUSIONS
    assert (dists.meta["model"]["opset"], dists.meta["engine"]["opset"]) == (18, 23)
    assert total_variation(truth(encoder), dists.probs).max() < 1e-6

    model = fo.export(encoder, X, tmp_path / "m.onnx")
    proto = onnx.load(model.path)
    assert {(o.domain, o.version) for o in proto.opset_import} == {("", 18)}
    assert not {"Attention", "Gelu"} & {node.op_type for node in proto.graph.node}
    assert fo.generate(model, X).meta["engine"]["fusions"] == FUSIONS
    assert fo.verify(model, encoder, X).passed


def test_a_fused_graph_that_differs_is_left_for_the_plain_one(
    encoder: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fuse_wrongly(model: onnx.ModelProto) -> FusedGraph | None:
        fused = fuse_graph(model)
        for node in [] if fused is None else fused.model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "scale":
                    attribute.f = 3.0
        return fused

    monkeypatch.setattr(prepare, "fuse_graph", fuse_wrongly)
    with caplog.at_level("INFO", "fo_onnx.engine"):
        dists = fo.generate(encoder, X, runner="onnx")
    assert dists.meta["engine"]["fusions"] == {}
    assert dists.meta["parity"]["passed"]
    assert total_variation(truth(encoder), dists.probs).max() < 1e-6
    assert any("without fused nodes: rows differ" in r.message for r in caplog.records)
