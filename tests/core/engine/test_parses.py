"""How often an ONNX file is parsed on each road, counted in a fresh process: parsing a large one takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_files import linear

COUNT = """
import sys
import warnings
import onnx

calls = []
for name in ("load", "load_model", "load_from_string", "load_model_from_string"):
    def counted(*args, original=getattr(onnx, name), **kwargs):
        calls.append(args[0])
        return original(*args, **kwargs)
    setattr(onnx, name, counted)

import numpy as np
import fo_onnx as fo

x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)


def net():
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


def count(road):
    calls.clear()
    road()
    return len(calls)

"""
PROGRAM = """
counts = {}
counts["export"] = count(lambda: fo.export(net(), x, "new.onnx"))
counts["export, cached"] = count(lambda: fo.export(net(), x, "again.onnx"))
counts["generate, cached"] = count(lambda: fo.generate(net(), x))
counts["a file of ours"] = count(lambda: fo.generate("new.onnx", x))
counts["a foreign file"] = count(lambda: fo.generate("foreign.onnx", x, output="logits"))
opened = fo.OnnxModel.open("new.onnx")
counts["an opened file"] = count(lambda: fo.generate(opened, x))
with fo.Engine("new.onnx") as engine:
    counts["runs of an open engine"] = count(lambda: [engine.generate(x) for _ in range(2)])
counts["verify"] = count(lambda: fo.verify("new.onnx", net(), x))
print(counts)
"""
MOST = {
    "export": 2,
    "export, cached": 2,
    "generate, cached": 1,
    "a file of ours": 1,
    "a foreign file": 1,
    "an opened file": 1,
    "runs of an open engine": 0,
    "verify": 1,
}


def run(folder: Path, program: str) -> dict[str, int]:
    environment = {**os.environ, "FO_ONNX_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COUNT + program], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = eval(done.stdout)
    return counts


MEASURED = """
# Every run is long enough for its plan to be measured.
from fo_onnx.runtime import measured_plan, plan_search

measured_plan.LEAST_RUN_S = plan_search.LEAST_RUN_S = 0.0
"""


@pytest.mark.parametrize("preamble", ["", MEASURED], ids=["by rule", "measured"])
def test_each_file_is_parsed_once_on_a_road(tmp_path: Path, preamble: str) -> None:
    pytest.importorskip("torch")
    linear(tmp_path / "foreign.onnx", weights=np.ones((4, 3), np.float32))
    assert run(tmp_path, preamble + PROGRAM) == MOST
    assert (tmp_path / "cache" / "measurements").exists() == bool(preamble)


def test_a_second_parse_is_counted(tmp_path: Path) -> None:
    """What the first test counts with can see more than there is."""
    linear(tmp_path / "m.onnx")
    twice = "print({'twice': count(lambda: [fo.OnnxModel.open('m.onnx') for _ in range(2)])})"
    assert run(tmp_path, twice) == {"twice": 2}
