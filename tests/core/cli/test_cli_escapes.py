"""Names that other people chose cannot steer the terminal, whichever command prints them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fo_onnx
from fo_onnx.guards.printable import escaped

torch = pytest.importorskip("torch")

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eder\u2028\nverdict   sound (forged)"
FILE = "a\x1b[2J\u202e\nfo-onnx: forged"
SCRIPT = "from fo_onnx.cli.main import main; main(prog_name='fo-onnx')"
APP = """
import logging, warnings
import numpy as np
import torch
from torch.utils.data import Dataset
EVIL = {evil!r}

def net():
    warnings.warn("a warning of " + EVIL)
    torch.manual_seed(0)
    return torch.nn.Linear(4, 2)

class Failing(Dataset):
    def __len__(self):
        return 3
    def __getitem__(self, row):
        raise ValueError("row of " + EVIL)

def breaks():
    raise RuntimeError("no " + EVIL)
"""


def on_terminal(*arguments: object) -> tuple[int, str]:
    """Exit code and text of a command whose output and errors are a terminal."""
    master, slave = pty.openpty()
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=slave, stderr=slave, env=os.environ | {"COLUMNS": "400"})
    os.close(slave)
    text = b""
    while True:
        try:
            block = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        text += block
    os.close(master)
    # The terminal's driver writes \r\n for \n; a bar goes back to the beginning of its line.
    return process.wait(), text.decode().replace("\r\n", "\n")


def require_harmless(text: str) -> None:
    assert "owned" in text or "a\\x1b" in text, f"the name is not there at all: {text}"
    # A bar moves to the line above with \x1b[A when it closes, and back to its beginning with \r.
    plain = text.replace("\r", "").replace("\x1b[A", "")
    assert [line for line in plain.split("\n") if escaped(line) != line] == []
    assert [
        line for line in plain.split("\n") if line.lstrip().startswith(("verdict   sound (forged)", "fo-onnx: forged"))
    ] == []


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    np.save("x.npy", x)
    Path("app.py").write_text(APP.format(evil=EVIL))
    Path("names.json").write_text(json.dumps([EVIL, "dog"]))
    Path("ids.json").write_text(json.dumps([f"{i}{EVIL}" for i in range(20)]))
    fo_onnx.export(torch.nn.Linear(4, 2), x, f"{FILE}.onnx", class_names=[EVIL, "dog"], model_name=EVIL)
    meta = {"model": {"name": EVIL, "class_names": [EVIL, "dog"]}, "user": {EVIL: EVIL}}
    dists = fo_onnx.Distributions(np.eye(2), ids=["a", EVIL], labels=[0, 1], meta=meta)
    for suffix in ("json", "parquet", "npz"):
        fo_onnx.save(dists, f"{FILE}.{suffix}")
    return tmp_path


COMMANDS = {
    "inspect results": ("inspect", f"{FILE}.parquet"),
    "inspect results as JSON": ("inspect", f"{FILE}.json", "--json"),
    "inspect a model": ("inspect", f"{FILE}.onnx"),
    "inspect a model as JSON": ("inspect", f"{FILE}.onnx", "--json"),
    "inspect nothing": ("inspect", f"{FILE}.nothing"),
    "inspect with wrong options": ("inspect", f"{FILE}.npz", "--timing"),
    "check": ("check", f"{FILE}.npz"),
    "check what is damaged": ("check", f"{FILE}.damaged.npz"),
    "convert": ("convert", f"{FILE}.parquet", f"{FILE}.safetensors"),
    "convert, which is refused": ("convert", f"{FILE}.parquet", f"{FILE}.json"),
    "convert to npy": ("convert", f"{FILE}.parquet", f"{FILE}.npy"),
    "generate": ("generate", f"{FILE}.onnx", "--data", "x.npy", "--ids", "ids.json", "-o", f"{FILE}.out.json"),
    "generate's plan": ("generate", f"{FILE}.onnx", "--data", "x.npy", "-o", f"{FILE}.out.json", "--dry-run"),
    "generate, which fails": ("generate", f"{FILE}.onnx", "--data", "app:Failing", "-o", "o.json", "--debug"),
    "export": (
        "export",
        "app:net",
        "--example",
        "x.npy",
        "-o",
        "e.onnx",
        "--class-names",
        "names.json",
        "--model-name",
        EVIL,
    ),
    "export, which fails": ("export", "app:breaks", "--example", "x.npy", "-o", "e.onnx"),
    "verify": ("verify", f"{FILE}.onnx", "--against", "app:net", "--data", "x.npy"),
    "no such command": (EVIL,),
    "no such option": (f"--{EVIL}",),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_that_a_terminal_obeys_is_printed(evil: Path, name: str) -> None:
    Path(f"{FILE}.damaged.npz").write_bytes(Path(f"{FILE}.npz").read_bytes()[:-40])
    code, text = on_terminal(*COMMANDS[name])
    assert code in (0, 1, 2)
    require_harmless(text)
    if "--json" in COMMANDS[name]:
        document = json.loads(text)
        assert (
            EVIL in json.dumps(document, ensure_ascii=False) or EVIL in str(document.values()) or _holds(document, EVIL)
        )


def _holds(value: object, text: str) -> bool:
    if isinstance(value, dict):
        return any(_holds(v, text) for v in (*value, *value.values()))
    return any(_holds(v, text) for v in value) if isinstance(value, list) else value == text


@pytest.mark.parametrize("name", ["inspect results", "inspect results as JSON", "check", "no such option"])
def test_nothing_that_a_terminal_obeys_is_printed_by_quick_commands(evil: Path, name: str) -> None:
    test_nothing_that_a_terminal_obeys_is_printed(evil, name)
