"""The README's commands, in the order in which they stand there, in a folder with what they name."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

import fo_onnx
from fo_onnx.cli.doctor import examine

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

README = Path(__file__).parents[3] / "README.md"
NET = """
import torch

def net():
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
"""


def commands() -> list[list[str]]:
    """Every line of the README that begins with the command, without its comment."""
    lines = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("fo-onnx ")]
    blocks = README.read_text(encoding="utf-8").split("```")[1::2]
    in_blocks = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line in in_blocks]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "module.py").write_text(NET)
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    save_file({name: 3 * value for name, value in net.state_dict().items()}, "net.safetensors")
    images = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    np.save("images.npy", images)
    np.save("labels.npy", np.arange(300) % 3)
    return tmp_path


def test_every_command_of_the_readme_runs(run, folder: Path) -> None:
    assert [c[0] for c in commands()] == ["export", "verify", "generate", "inspect", "convert", "check", "doctor"]
    for command in commands():
        result = run(*command)
        if command[0] == "doctor":
            assert result.exit_code == bool(examine()["problems"]), result.output
        else:
            assert result.exit_code == 0, f"{command}: {result.output}"
    dists = fo_onnx.load("net.parquet")
    assert len(dists) == 300
    assert dists.labels is not None
    assert np.array_equal(np.asarray(fo_onnx.load("net.json")), np.asarray(dists))


def test_verify_without_the_weights_of_the_export_says_what_may_be_missing(run, folder: Path) -> None:
    export, verify = commands()[:2]
    assert run(*export).exit_code == 0
    at = verify.index("--weights")
    result = run(*verify[:at], *verify[at + 2 :])
    assert result.exit_code == 1
    advice = "If the file was exported with --weights, give the same --weights here, beside --against."
    assert result.stdout.endswith(f"\n\n{advice}\n")
    as_json = json.loads(run(*verify[:at], *verify[at + 2 :], "--json").stdout)
    assert as_json["advice"] == advice
    assert json.loads(run(*verify, "--json").stdout)["advice"] is None
