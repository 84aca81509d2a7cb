"""export and verify."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fo_onnx


def test_export_with_random_rows(run, work: Path) -> None:
    result = run("export", "app:trained", "--input-shape", "1,8,8", "-o", "e.onnx", "--class-names", "names.txt")
    assert result.exit_code == 2  # the names are not there yet
    Path("names.txt").write_text("\n".join("ABCDEFGHIJ"))
    result = run("export", "app:trained", "--input-shape", "1,8,8", "-o", "e.onnx", "--class-names", "names.txt")
    assert result.exit_code == 0, result.stderr
    assert "compared on random rows" in result.stderr
    assert "classes  10: A, B, C" in result.stdout
    assert "inputs   image: float32 (n, 1, 8, 8)" in result.stdout
    assert "meaning  logits" in result.stdout
    assert "verdict               passed" in result.stdout
    assert fo_onnx.OnnxModel.open("e.onnx").spec.class_names == tuple("ABCDEFGHIJ")


def test_export_with_an_example_as_json(run, work: Path) -> None:
    result = run(
        "export", "app:DigitNet", "--weights", "w.pt", "--example", "x.npy", "-o", "e.onnx", "--temperature", "2",
        "--model-name", "net", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["path"] == "e.onnx"
    assert document["random_rows"] is False
    assert document["parity"]["passed"] is True
    assert document["parity"]["rows"] == 256
    assert (document["spec"]["temperature"], document["spec"]["name"], document["spec"]["classes"]) == (2.0, "net", 10)
    assert result.stderr == ""


def test_export_unverified(run, work: Path) -> None:
    result = run("export", "app:trained", "--example", "x.npy", "-o", "e.onnx", "--no-verify")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.endswith("not compared with the model (--no-verify)\n")
    assert fo_onnx.OnnxModel.open("e.onnx").provenance["parity"] is None


def test_export_replaces_only_with_overwrite(run, work: Path) -> None:
    before = Path("d.onnx").read_bytes()
    result = run("export", "app:trained", "--example", "x.npy", "-o", "d.onnx")
    assert result.exit_code == 1
    assert result.stderr == (
        "fo-onnx: error: exporting to d.onnx: it exists already. Say --overwrite, or choose another name.\n"
    )
    assert Path("d.onnx").read_bytes() == before


def test_verify(run, work: Path) -> None:
    result = run("verify", "d.onnx", "--against", "app:fresh", "--weights", "w.pt", "--data", "x.npy", "--rows", 50)
    assert result.exit_code == 0, result.stderr
    assert "rows                  50, at batch sizes 50, 1, 2, 3" in result.stdout
    assert "verdict               passed: the rows agree" in result.stdout


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_verify_finds_another_net(run, work: Path, arguments: list[str]) -> None:
    result = run("verify", "d.onnx", "--against", "app:fresh", "--data", "x.npy", *arguments)
    assert result.exit_code == 1
    assert result.stderr == ""
    if arguments:
        document = json.loads(result.stdout)
        assert document["passed"] is False
        assert document["max_tv"] > 0.5
    else:
        assert "FAILED: rows differ by a total variation" in result.stdout
