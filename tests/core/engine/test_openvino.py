"""bfloat16 by OpenVINO, where its build of ONNX Runtime is the one that is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from broken_rows import BrokenRows
from onnx_files import convolutional, images

import fo_onnx as fo
from fo_onnx.engine import choose_precision
from fo_onnx.runtime.compare_speed import SpeedComparison
from fo_onnx.runtime.devices import placements

PROVIDER = "OpenVINOExecutionProvider"
pytestmark = [
    pytest.mark.openvino,
    pytest.mark.skipif(PROVIDER not in onnxruntime.get_available_providers(), reason=f"no {PROVIDER}"),
]
X = images(1500)
PROCESSOR = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
needs_bf16 = pytest.mark.skipif(
    not any(flag in PROCESSOR for flag in ("avx512_bf16", "amx_bf16")), reason="the processor has no bfloat16"
)


@pytest.fixture
def path(tmp_path):
    return convolutional(tmp_path / "net.onnx")


@needs_bf16
def test_bf16_is_tried_and_runs_where_it_is_the_fastest(path, monkeypatch):
    def compare(first, second):
        return SpeedComparison(((1.0, 3.0 if second.runners[0].device == "openvino:0" else 2.0),))

    monkeypatch.setattr(choose_precision, "compare_speed", compare)
    lower, float32 = (fo.generate(path, X, precision=p, progress=False) for p in ("auto", "float32"))
    assert lower.meta["engine"]["precision"] == lower.meta["precision"]["choice"] == "bf16"
    assert lower.meta["engine"]["provider"] == PROVIDER
    assert lower.meta["engine"]["cpu_nodes"] == 0
    # It is bfloat16 indeed: near float32, and not at it.
    apart = np.abs(lower.probs.astype(np.float64) - float32.probs).sum(axis=1) / 2
    assert 1e-5 < apart.max() < 0.02
    again = fo.generate(path, X, precision="bf16", progress=False)
    assert again.probs.tobytes() == lower.probs.tobytes()


def test_a_processor_without_bf16_has_no_rows_in_it(path, monkeypatch):
    """OpenVINO takes bfloat16 for a wish, and runs in float32; where the processor has it, float32 is what is wished for here."""
    if "avx512" in PROCESSOR or "avx_ne_convert" in PROCESSOR:
        (plain,) = placements("openvino", "float32", [PROVIDER])
        monkeypatch.setattr(choose_precision, "place_in_bf16", lambda: plain)
    stays = fo.generate(path, X, precision="auto", progress=False)
    (trial,) = (trial for trial in stays.meta["precision"]["trials"] if trial["name"] == "bf16")
    assert trial["problem"] == "OpenVINO has no bfloat16 on this processor, and gives the rows of float32"
    with pytest.raises(fo.OptionError, match=r"precision='bf16' was asked for, and cannot be had: OpenVINO has no"):
        fo.generate(path, X, precision="bf16", progress=False)


@needs_bf16
def test_a_run_in_bf16_is_resumed(path, tmp_path):
    out = tmp_path / "d.parquet"
    options = {"precision": "bf16", "batch_size": 50, "out": out, "progress": False}
    with pytest.raises(fo.DataError, match="row 1001"):
        fo.generate(path, BrokenRows(X, 1001), **options)
    resumed = fo.generate(path, BrokenRows(X), **options, resume=True)
    whole = fo.generate(path, X, precision="bf16", batch_size=50, progress=False)
    assert resumed.probs.tobytes() == whole.probs.tobytes()
