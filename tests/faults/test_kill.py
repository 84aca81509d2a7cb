"""SIGKILL at chosen and at random moments: what was finished is there, and the end is the same in every bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import killed_writer
import numpy as np
import pytest

from fo_onnx.distributions import Distributions
from fo_onnx.store import check, load
from fo_onnx.store.run.journal import Journal

SCRIPT = Path(killed_writer.__file__)
ROOT = SCRIPT.parents[2]
ROWS = 500
pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")


def start(target, deadly=0):
    command = [sys.executable, str(SCRIPT), str(target), str(ROWS), str(deadly)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def expected():
    parts = [killed_writer.batch(s, ROWS) for s in range(0, ROWS, killed_writer.BATCH)]
    ids = np.concatenate([positions[good] for positions, good, _ in parts])
    return Distributions(np.concatenate([raw[good] for _, good, raw in parts]), ids=ids, labels=ids % killed_writer.K)


def finished_so_far(target):
    """Positions that are finished, whatever a kill left; the rows of them must be right."""
    folder = target if target.suffix == "" else target.with_name(target.name + ".partial")
    if not (folder / "run.json").exists():
        return 0
    journal = Journal(folder)
    if journal.layout is not None:
        found = load(folder)
        assert found.equals(expected().slice(0, len(found)))
    return journal.position


def end(target):
    child = start(target)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    found = load(target)
    assert found.equals(expected())
    assert found.meta["rows"] == {"written": 490, "skipped": 0, "quarantined": 10}
    report = check(target)
    assert report.ok, report.problems
    errors = target / "errors.jsonl" if target.suffix == "" else target.with_name(target.name + ".errors.jsonl")
    assert [json.loads(line)["position"] for line in errors.read_text().splitlines()] == list(range(49, ROWS, 50))
    assert {p.name for p in target.parent.iterdir()} <= {target.name, errors.name}
    return int(out.split()[-1])


@pytest.mark.parametrize("name", ["x.json", "x"])
def test_killed_at_chosen_operations(name, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    total = end(tmp_path / "whole" / name)
    target = tmp_path / "killed" / name
    rng = random.Random(name)
    position = 0
    # The last ones fall into the ending of the run; each run begins its count anew.
    for deadly in [3, *(rng.randrange(6, total // 3) for _ in range(3)), total // 2]:
        child = start(target, deadly)
        child.communicate(timeout=60)
        assert child.returncode in (-signal.SIGKILL, 0)
        if child.returncode == 0:
            break
        now = finished_so_far(target)
        assert now >= position, "finished rows were lost"
        position = now
    assert position > 0
    if not target.is_file():
        end(target)
    assert load(target).equals(expected())


@pytest.mark.parametrize("name", ["x.parquet", "x"])
def test_killed_while_the_run_ends(name, tmp_path):
    """From the last rows on, each operation in turn: the target is there and whole, or the run goes on."""
    (tmp_path / "whole").mkdir()
    total = end(tmp_path / "whole" / name)
    for back in (1, 3, 5):
        place = tmp_path / f"killed{back}"
        place.mkdir()
        child = start(place / name, total - back)
        child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL
        if (place / name).is_file():
            assert load(place / name).equals(expected())
        else:
            assert finished_so_far(place / name) > 0
        if not (place / name / "manifest.json").exists() and (place / f"{name}.partial" / "run.json").exists():
            end(place / name)


def test_killed_at_random_times(tmp_path):
    target = tmp_path / "x.npz"
    rng = random.Random(1)
    for _ in range(3):
        child = start(target)
        child.stdout.readline()
        time.sleep(rng.uniform(0, 0.06))
        child.kill()
        child.communicate(timeout=60)
        if target.exists():
            break
        finished_so_far(target)
    if target.exists():
        assert load(target).equals(expected())
    else:
        end(target)
