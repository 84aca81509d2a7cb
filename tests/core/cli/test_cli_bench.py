"""``fo-onnx bench``: it compares, writes files, measures memory, and refuses what it cannot do."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import helper
from onnx_files import linear, rows

from fo_onnx.bench import read_result


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", rows(256))
    return linear(tmp_path / "m.onnx")


QUICK = ("--turns", "1", "--rows", "128", "--batch-size", "64")


def test_a_file_with_results_table_and_page(run, model, tmp_path):
    outs = [tmp_path / f"r{suffix}" for suffix in (".json", ".md", ".html")]
    result = run("bench", model, "--data", "x.npy", *QUICK, *(word for out in outs for word in ("-o", out)))
    assert result.exit_code == 0, result.output
    assert "fo-onnx" in result.stdout
    paths = [path.name for path in read_result(outs[0]).paths]
    # Where the package openvino is installed it is another path.
    assert [path for path in paths if path != "openvino"] == ["onnxruntime", "fo-onnx"]
    assert "| onnxruntime |" in outs[1].read_text()
    assert "<svg" in outs[2].read_text()
    # Its own files are replaced, and nothing else.
    assert run("bench", model, "--data", "x.npy", *QUICK, "-o", outs[1]).exit_code == 0
    notes = tmp_path / "notes.md"
    notes.write_text("mine\n")
    refused = run("bench", model, "--data", "x.npy", *QUICK, "-o", notes)
    assert refused.exit_code == 1
    assert "notes.md" in refused.stderr
    assert notes.read_text() == "mine\n"


def test_the_memory_of_each_path_is_of_a_process_that_runs_it_alone(run, model):
    document = json.loads(run("bench", model, "--data", "x.npy", *QUICK, "--memory", "--json").stdout)
    peaks = [path["peak_bytes"] for path in document["paths"]]
    # Python, numpy and ONNX Runtime take tens of megabytes, and far less than this process, in which frameworks may be.
    assert all(20e6 < peak < 400e6 for peak in peaks)
    assert not [name for name in document["not_tried"] if "memory" in name]


def test_the_processes_that_measure_memory_know_which_output_is_meant(run, model, tmp_path):
    two = linear(tmp_path / "two.onnx", helper.make_node("Relu", ["z"], ["r"]), output="z", more_outputs=("r",))
    arguments = ("bench", two, "--data", "x.npy", *QUICK, "--output-name", "z", "--memory", "--json")
    document = json.loads(run(*arguments).stdout)
    assert all(path["peak_bytes"] > 20e6 for path in document["paths"]), document["not_tried"]


def test_two_results_are_compared(run, model, tmp_path):
    out = tmp_path / "r.json"
    run("bench", model, "--data", "x.npy", *QUICK, "-o", out)
    assert "| the same |" in run("bench", "--compare", out, out).stdout
    values = json.loads(out.read_text())
    values["environment"]["processor"] = "another"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(values))
    refused = run("bench", "--compare", out, other)
    assert refused.exit_code == 1
    assert "they differ in processor" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a model and --data are needed"),
        (("m.onnx",), "a model and --data are needed"),
        (("m.onnx", "--data", "x.npy", "-o", "r.txt"), "a file that ends in .json"),
        (("m.onnx", "--data", "x.npy", "-o", "none/r.json"), "there is no folder"),
        (("m.onnx", "--data", "x.npy", "--path", "TensorRT"), "there is no path 'TensorRT'"),
        (("m.onnx", "--data", "x.npy", "--rows", "1000"), "the data have 256"),
        (("m.onnx", "--data", "x.npy", "--turns", "0"), "--turns 0 is not usable"),
        (("--compare", "none.json", "none.json"), "there is no such file"),
        (("m.onnx", "--compare", "a.json", "b.json"), "takes two files of results, and no model"),
    ],
)
@pytest.mark.usefixtures("model")
def test_bad_input(run, arguments, message):
    result = run("bench", *arguments)
    assert result.exit_code != 0
    assert message in " ".join(result.stderr.split())
