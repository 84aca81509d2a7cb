"""Exports with a mistake in their graph: parity catches each, in every verb."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_graphs import MUTATIONS, mutate, softmax64

import fo_onnx as fo
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import total_variation

torch = pytest.importorskip("torch")
from fo_onnx_torch.plugin import TorchExporter  # noqa: E402

ROWS = np.random.default_rng(5).standard_normal((40, 6)).astype(np.float32)


WRONG = r"rows differ by a total variation of up to .* above the tolerance of 1e-04|the original gives no distribution \(NaN\)"


@pytest.fixture(scope="module")
def net() -> Any:
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4)).eval()
    with torch.no_grad():
        made[2].weight.mul_(5)
    return made


@pytest.fixture(scope="module")
def truth(net: Any) -> np.ndarray:
    with torch.no_grad():
        found = softmax64(net(torch.from_numpy(ROWS)).double().numpy())
    assert row_spread(found) >= 0.05
    return found


@pytest.fixture(scope="module")
def exported(net: Any, tmp_path_factory: pytest.TempPathFactory) -> fo.OnnxModel:
    return fo.export(net, ROWS, tmp_path_factory.mktemp("exported") / "net.onnx")


@pytest.fixture(scope="module")
def raw_export(net: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, bytes]:
    """What the exporter itself gives: the spec, and the file without a head."""
    from fo_onnx.contracts.options import ModelOptions, OutputOptions

    path = tmp_path_factory.mktemp("raw") / "net.onnx"
    spec = TorchExporter().export(net, {"0": ROWS[:3]}, path, ModelOptions(), OutputOptions())
    return spec, path.read_bytes()


@pytest.fixture(params=MUTATIONS)
def mutation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def wrong_exports(mutation: str, raw_export: tuple[Any, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter of torch that makes the mistake."""
    spec, content = raw_export

    def export(self: Any, model: Any, example: Any, path: Path, options: Any, output: Any) -> Any:
        proto = onnx.load_model_from_string(content)
        mutate(proto, spec.output.name, mutation, 4)
        path.write_bytes(proto.SerializeToString())
        return spec

    monkeypatch.setattr(TorchExporter, "export", export)


def test_verify_passes_the_right_file(exported: fo.OnnxModel, net: Any) -> None:
    report = fo.verify(exported, net, ROWS)
    assert report.passed
    assert report.informative
    assert report.max_tv < 1e-6


def test_verify_tells_the_wrong_ones(exported: fo.OnnxModel, net: Any, mutation: str, tmp_path: Path) -> None:
    proto = onnx.load_model(exported.path)
    assert exported.probs_output is not None
    mutate(proto, exported.probs_output, mutation, 4)
    (tmp_path / "wrong.onnx").write_bytes(proto.SerializeToString())

    report = fo.verify(tmp_path / "wrong.onnx", net, ROWS)

    assert not report.passed
    assert report.max_tv > 0.01
    assert "rows differ by a total variation of up to" in report.verdict()
    assert "FAILED" in report.table()


@pytest.mark.usefixtures("wrong_exports")
def test_generate_falls_back_and_gives_the_right_rows(net: Any, truth: np.ndarray) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = fo.generate(net, ROWS)

    assert [w.category for w in caught] == [fo.FallbackWarning]
    assert found.meta["runner"]["kind"] == "native"
    assert re.search(WRONG, found.meta["runner"]["reason"])
    assert found.meta["parity"]["passed"] is False
    assert total_variation(truth, found.probs).max() < 1e-6


@pytest.mark.usefixtures("wrong_exports")
def test_export_writes_nothing(net: Any, tmp_path: Path) -> None:
    with pytest.raises(fo.ParityError, match=f"({WRONG}).* Nothing was written to"):
        fo.export(net, ROWS, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("wrong_exports")
def test_asked_for_onnx_it_is_an_error(net: Any) -> None:
    with pytest.raises(fo.ParityError, match=f"torch → ONNX: ({WRONG})"):
        fo.generate(net, ROWS, runner="onnx")


def test_a_small_mistake_is_caught(exported: fo.OnnxModel, net: Any, tmp_path: Path) -> None:
    """One weight off by a thousandth."""
    proto = onnx.load_model(exported.path)
    bias = next(t for t in proto.graph.initializer if list(t.dims) == [4])
    values = onnx.numpy_helper.to_array(bias).copy()
    values[1] += 1e-3
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    (tmp_path / "wrong.onnx").write_bytes(proto.SerializeToString())

    report = fo.verify(tmp_path / "wrong.onnx", net, ROWS)

    assert not report.passed
    assert 1e-4 < report.max_tv < 1e-3


def test_a_near_uniform_model_proves_little(tmp_path: Path) -> None:
    torch.manual_seed(0)
    flat = torch.nn.Linear(6, 4).eval()
    with torch.no_grad():
        flat.weight.mul_(1e-5)

    model = fo.export(flat, ROWS, tmp_path / "flat.onnx", output="logits")
    report = fo.verify(model, flat, ROWS)

    assert report.passed
    assert not report.informative
    assert "a near-uniform model agrees with anything, so that this proves little" in report.verdict()
