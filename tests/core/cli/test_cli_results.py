"""inspect, convert and check; doctor."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import fo_onnx
from fo_onnx.runtime.measurements import Measurements
from fo_onnx.store import files


def test_inspect_a_model(run, work: Path) -> None:
    result = run("inspect", "d.onnx")
    assert result.exit_code == 0, result.stderr
    for line in ("inputs    image: float32 (n, 1, 8, 8)", "meaning   logits", "gives     probs, logits",
                 "classes   10: a, b", "opset 18 of ai.onnx", "exported  20", "torch", "parity    passed: max total variation",
                 "sha256"):  # fmt: skip
        assert line in result.stdout
    document = json.loads(run("inspect", "d.onnx", "--json").stdout)
    assert document["kind"] == "model"
    assert document["spec"]["output_kind"] == "logits"
    assert document["sha256"] == fo_onnx.OnnxModel.open("d.onnx").sha256


def test_inspect_times_a_model(run, work: Path) -> None:
    document = json.loads(run("inspect", "d.onnx", "--timing", "--json").stdout)
    assert [t["batch_size"] for t in document["timing"]] == [1, 16, 64, 256]
    for t in document["timing"]:
        assert t["rows_per_s"] == pytest.approx(t["batch_size"] / t["batch_ms"] * 1e3)
        assert t["runs"] >= 3
    table = run("inspect", "d.onnx", "--timing").stdout.partition("\n\n")[2].splitlines()
    assert table[0].split() == ["batch", "rows/s", "ms", "per", "batch"]
    assert [line.split()[0] for line in table[1:]] == ["1", "16", "64", "256"]


def test_inspect_a_foreign_model(run, work: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "width"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "width"])
    graph = helper.make_graph([helper.make_node("Softmax", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), "f.onnx")
    result = run("inspect", "f.onnx")
    assert result.exit_code == 0, result.stderr
    assert "exported  not by fo-onnx" in result.stdout
    assert "meaning   not decided" in result.stdout
    result = run("inspect", "f.onnx", "--timing")
    assert result.exit_code == 2
    assert "--timing needs --input-shape" in result.stderr
    result = run("inspect", "f.onnx", "--timing", "--input-shape", "3")
    assert result.exit_code == 0, result.stderr


def test_inspect_results(run, work: Path) -> None:
    result = run("inspect", "d.parquet")
    assert result.exit_code == 0, result.stderr
    for line in ("rows     100 with labels, integers as ids", "model    DigitNet, from torch, logits", "runner   onnx on cpu",
                 "metrics  accuracy", "user     who = me", "\nid  label"):  # fmt: skip
        assert line in result.stdout
    assert len(result.stdout.partition("\n\n")[2].splitlines()) == 6
    document = json.loads(run("inspect", "d.parquet", "--json").stdout)
    assert (document["kind"], document["rows"], document["complete"]) == ("results", 100, True)
    assert np.array_equal(np.float32(document["first_rows"]["2"]), fo_onnx.load("d.parquet")[2])


def test_inspect_rows_of_many_classes(run, work: Path) -> None:
    probs = np.full((2, 20), 0.5 / 19, np.float32)
    probs[:, 4] = 0.5
    fo_onnx.save(fo_onnx.Distributions(probs, ids=["x", "y"]), "wide.npz")
    assert "\n x  4 0.5000, " in run("inspect", "wide.npz").stdout


def test_inspect_and_check_an_unfinished_run(run, work: Path) -> None:
    assert (
        run("generate", "d.onnx", "--data", "app:Interrupted", "-o", "o.parquet", "--batch-size", 50).exit_code == 130
    )
    result = run("inspect", "o.parquet.partial")
    assert result.exit_code == 0, result.stderr
    assert "state    UNFINISHED" in result.stdout
    assert "None" not in result.stdout
    result = run("check", "o.parquet.partial")
    assert result.exit_code == 0, result.stdout
    assert "complete  no: the run has not ended; generate --resume resumes it" in result.stdout
    result = run("convert", "o.parquet.partial", "part.npz")
    assert result.exit_code == 0, result.stderr
    assert "is an unfinished run; its" in result.stderr
    result = run("generate", "d.onnx", "--data", "app:images", "-o", "o.parquet")
    assert result.exit_code == 1
    assert "--resume continues it, --overwrite begins anew." in result.stderr


def test_inspect_wants_a_model_for_timing(run, work: Path) -> None:
    assert run("inspect", "d.parquet", "--timing").exit_code == 2
    assert run("inspect", "d.onnx", "--input-shape", "3").exit_code == 2
    result = run("inspect", "nothing.onnx")
    assert result.exit_code == 1
    assert "found nothing; an .onnx file was expected" in result.stderr


@pytest.mark.parametrize("suffix", [".parquet", ".json", ".npz", ".safetensors", ""])
def test_convert_keeps_everything(run, work: Path, suffix: str) -> None:
    result = run("convert", "d.parquet", f"o{suffix}")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("100 rows x 10 classes: d.parquet (")
    there, back = fo_onnx.load("d.parquet"), fo_onnx.load(f"o{suffix}")
    assert back.equals(there)
    assert back.meta["user"] == {"who": "me"}
    result = run("convert", "d.parquet", f"o{suffix}", "--json")
    assert result.exit_code == 1
    assert "--overwrite" in json.loads(result.stdout)["error"]["message"]
    document = json.loads(run("convert", "d.parquet", f"o{suffix}", "--json", "--overwrite").stdout)
    assert (document["rows"], document["path"]) == (100, f"o{suffix}")


def test_convert_says_what_npy_loses(run, work: Path) -> None:
    result = run("convert", "d.parquet", "o.npy")
    assert result.exit_code == 0
    assert result.stderr == "fo-onnx: .npy keeps ids, distributions and meta, without labels and logits.\n"
    assert np.array_equal(np.load("o.npy"), fo_onnx.load("d.parquet").probs)


def test_check(run, work: Path) -> None:
    result = run("check", "d.parquet")
    assert result.exit_code == 0
    assert "rows     100 x 10 classes" in result.stdout
    assert "verdict  sound" in result.stdout
    data = bytearray(Path("d.parquet").read_bytes())
    data[200] ^= 1
    Path("d.parquet").write_bytes(data)
    result = run("check", "d.parquet")
    assert result.exit_code == 1
    assert "verdict  DAMAGED: " in result.stdout
    result = run("check", "d.parquet", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False
    assert json.loads(result.stdout)["problems"]


def test_doctor(run) -> None:
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.stdout
    document = json.loads(result.stdout)
    kinds = {(name, kind) for name in ("jax", "keras", "sklearn", "torch") for kind in ("exporter", "source")}
    assert kinds == {(p["name"], p["kind"]) for p in document["plugins"]}
    assert document["problems"] == []
    assert {"device": "cpu", "problem": None} in document["devices"]
    assert "CPUExecutionProvider" in document["providers"]
    assert document["packages"]["fo-onnx"] == fo_onnx.__version__
    text = run("doctor").stdout
    assert "verdict      all is well" in text
    assert "telemetry    off: " in text


def test_doctor_shows_and_clears_the_cache(run, work, empty_cache) -> None:
    assert run("doctor", "--json", "--clear-cache").exit_code == 0
    process = run("generate", "app:trained", "--data", "x.npy", "-o", "rows.parquet", "--limit", 20)
    assert process.exit_code == 0, process.stderr
    document = json.loads(run("doctor", "--json").stdout)["cache"]
    assert (document["entries"], document["folder"], document["limit_bytes"]) == (1, str(empty_cache), 10**10)
    assert document["size_bytes"] > 1000
    assert f"of at most 10 GB, in {empty_cache}" in run("doctor").stdout
    # One is kept of what the export took.
    Measurements.of_user().keep("plan", {}, {})
    assert json.loads(run("doctor", "--json").stdout)["cache"]["measurements"] == 2
    cleared = run("doctor", "--clear-cache").stdout
    assert "cache        0 exports, 0 bytes" in cleared
    assert "; 0 measurements (3 were removed)" in cleared
    assert [e for e in empty_cache.iterdir() if e.is_dir()] == []


def test_doctor_removes_what_killed_runs_left(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    child = os.fork()
    if child == 0:
        with files.temporary_folder() as folder:
            (folder / "model.onnx").touch()
            os._exit(9)
    os.waitpid(child, 0)
    (tmp_path / "fo-onnx-thesis").mkdir()
    assert len(list(tmp_path.iterdir())) == 2
    assert "1 temporary folders of killed runs were removed" in run("doctor").stdout
    assert [p.name for p in tmp_path.iterdir()] == ["fo-onnx-thesis"]
    assert json.loads(run("doctor", "--json").stdout)["removed"] == 0


def test_doctor_finds_two_wheels(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fo_onnx.runtime.devices.installed_wheels", lambda: ["onnxruntime", "onnxruntime-gpu"])
    result = run("doctor")
    assert result.exit_code == 1
    assert (
        "TO BE MENDED: onnxruntime and onnxruntime-gpu are installed together and overwrite each other. Mend it with pip "
        "uninstall -y onnxruntime onnxruntime-gpu, then install one of them"
    ) in result.stdout


def test_doctor_finds_a_broken_plugin(run, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from fo_onnx.models import plugins

    broken = EntryPoint("odd", "not_there_at_all:Exporter", plugins.EXPORTERS)
    points = {**plugins._all_entry_points(plugins.EXPORTERS), "odd": [broken]}
    sources = plugins._all_entry_points(plugins.SOURCES)
    monkeypatch.setattr(plugins, "_all_entry_points", {plugins.EXPORTERS: points, plugins.SOURCES: sources}.__getitem__)
    result = run("doctor")
    assert result.exit_code == 1
    assert "odd exporter (not_there_at_all:Exporter of ?): the plugin 'odd'" in result.stdout


def test_doctor_without_onnxruntime(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    result = run("doctor")
    assert result.exit_code == 1
    assert "pip install 'fo-onnx[cpu]' (or 'fo-onnx[gpu]' for CUDA)" in result.stdout
    assert "devices      none" in result.stdout


@pytest.mark.parametrize(("value", "said"), [("0", "on: "), ("1", "off: "), (None, "off: fo-onnx sets")])
def test_doctor_tells_the_telemetry(run, monkeypatch: pytest.MonkeyPatch, value: str | None, said: str) -> None:
    if value is None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    else:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", value)
    assert json.loads(run("doctor", "--json").stdout)["telemetry"].startswith(said)
