"""The demo, twice in one folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_files import linear

import fo_onnx
from fo_onnx.cli import demo
from fo_onnx.distributions.probabilities import entropy

pytest.importorskip("torch")
from fo_onnx_torch.demo import digits, splits


@pytest.mark.timeout(120)
def test_the_demo_runs_twice(run, tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path / "demo", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["parity"]["passed"] is True
    assert document["parity"]["row_spread"] > 0.8
    assert document["metrics"]["held-out"]["accuracy"] > 0.97
    assert document["throughput"]["max_tv"] < 1e-5
    assert set(document["throughput"]["rows_per_s"]) == {"torch", "onnx"}

    held_out = fo_onnx.load(tmp_path / "demo" / "held-out.parquet")
    images, labels = digits()
    train, rows = splits(len(images))
    assert held_out.ids.tolist() == rows.tolist()
    assert np.array_equal(held_out.labels, labels[rows])
    assert not set(train) & set(rows)
    assert fo_onnx.load(tmp_path / "demo" / "held-out.json").equals(held_out)
    assert len(fo_onnx.load(tmp_path / "demo" / "train.json")) == len(train)
    nats = entropy(held_out.probs)
    assert [u["id"] for u in document["least_certain"]] == held_out.ids[np.argsort(-nats)[:5]].tolist()

    text = run("demo", "--out", tmp_path / "demo")
    assert text.exit_code == 0, text.stderr
    for line in (
        "verdict               passed",
        "held-out",
        "ONNX is ",
        "least certain held-out digits",
        "held-out.json",
    ):
        assert line in text.stdout
    assert f"row {document['least_certain'][0]['id']}: labelled " in text.stdout
    assert text.stdout.count("|  zero ") == 5


def test_a_picture_has_the_bars_beside_it() -> None:
    image = np.zeros((8, 8), np.float32)
    image[0, 0] = 1
    row = {"id": 3, "label": 2, "predicted": 1, "entropy": 0.5, "probs": [0, 0.75, 0.25, *[0] * 7]}
    lines = demo._picture(image, row).splitlines()
    assert lines[0] == "row 3: labelled two, most probably one, entropy 0.500 nats"
    assert lines[2] == "  @@                |  one    0.750 ###############"
    assert len(lines) == 11


def test_the_demo_names_what_is_missing(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    result = run("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 1
    assert result.stderr == (
        "fo-onnx: error: the demo needs torch and scikit-learn, and sklearn.datasets is missing: "
        "pip install 'fo-onnx[demo]'.\n"
    )
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("name", demo.FILES)
def test_files_of_others_stay(run, tmp_path: Path, name: str) -> None:
    """Also files that fo-onnx wrote, but not the demo."""
    (tmp_path / "demo").mkdir()
    path = tmp_path / "demo" / name
    if path.suffix == ".onnx":
        linear(path)
    else:
        fo_onnx.save(fo_onnx.Distributions(np.full((3, 2), 0.5, np.float32)), path)
    before = path.read_bytes()
    result = run("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 1
    assert f"{name}, and the file that is there is not of an earlier demo. Choose another folder" in result.stderr
    assert [p.name for p in path.parent.iterdir()] == [name]
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made(run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("demo", "--out", tmp_path / "file")
    assert result.exit_code == 1
    assert "which cannot be made" in result.stderr
