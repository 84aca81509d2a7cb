"""OpenVINO as a path of a benchmark, where that package is installed."""

from __future__ import annotations

import importlib.util

import pytest
from onnx_files import linear, rows

from fo_onnx.bench import run


def test_the_path_says_that_it_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = run(linear(tmp_path / "m.onnx"), rows(64), turns=1, rows=64, batch_sizes=(16,))
    assert result.not_tried["openvino"] == "the package openvino is not installed"


@pytest.mark.openvino
def test_its_rows_are_those_of_the_model(tmp_path):
    pytest.importorskip("openvino")
    result = run(linear(tmp_path / "m.onnx"), rows(70), turns=2, batch_sizes=(16, 32), paths=["openvino", "fo-onnx"])
    path = result.path("openvino")
    assert path.error is None
    assert path.max_tv < 1e-5
    assert len(path.seconds) == 2
