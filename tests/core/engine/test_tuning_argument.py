"""tuning=: how an earlier run was cut and spread, as its record or its file says it; bad ones are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from onnx_files import linear, node, rows

import fo_onnx as fo
from fo_onnx.cli.main import main
from fo_onnx.runtime import session

TUNING = {"batch_size": 3, "sessions": 2, "threads": 2, "spinning": False}
ROWS = rows(20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return linear(tmp_path / "m.onnx")


def generate(path: Any, **arguments: Any) -> fo.Distributions:
    return fo.generate(path, ROWS, output="logits", **arguments)


def test_a_run_is_cut_as_given(path: Path) -> None:
    result = generate(path, tuning=MappingProxyType(TUNING))
    assert result.meta["engine"]["tuning"] == {**TUNING, "chosen": "as recorded", "measured": []}
    assert [result.meta["engine"][key] for key in ("batch_size", "sessions", "threads")] == [3, 2, 2]
    np.testing.assert_allclose(result.probs, generate(path).probs, atol=1e-6)


def test_a_record_gives_it_back(path: Path, tmp_path: Path) -> None:
    first = generate(path, tuning=TUNING, out=tmp_path / "first.parquet")
    for tuning in (first.meta["engine"]["tuning"], tmp_path / "first.parquet", str(tmp_path / "first.parquet")):
        assert generate(path, tuning=tuning).meta["engine"]["tuning"] == first.meta["engine"]["tuning"]


def test_threads_spin_as_given(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ort, options = session.runtime(), []
    make = ort.SessionOptions
    monkeypatch.setattr(ort, "SessionOptions", lambda: options.append(make()) or options[-1])
    for spinning in (True, False):
        options.clear()
        generate(path, tuning={**TUNING, "spinning": spinning})
        said = [o.get_session_config_entry("session.intra_op.allow_spinning") for o in options[-2:]]
        assert said == [str(int(spinning))] * 2
        assert [o.intra_op_num_threads for o in options[-2:]] == [2, 2]


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        (3, r"tuning=3 is not usable: an object with batch_size, sessions, threads and spinning"),
        ({}, "tuning= lacks batch_size, sessions, threads, spinning: an object with"),
        ({**TUNING, "batch": 3}, "tuning= holds 'batch', which is not known"),
        ({k: v for k, v in TUNING.items() if k != "spinning"}, "tuning= lacks spinning"),
        ({**TUNING, "batch_size": 0}, r"tuning= says batch_size=0; a whole number from 1 to 2147483648"),
        ({**TUNING, "sessions": 10**6}, "tuning= says sessions=1000000; a whole number from 1 to 1024"),
        ({**TUNING, "threads": 1.5}, r"tuning= says threads=1\.5; a whole number"),
        ({**TUNING, "threads": True}, "tuning= says threads=True; a whole number"),
        ({**TUNING, "spinning": "no"}, "tuning= says spinning='no'; true or false was expected"),
    ],
)
def test_bad_ones_are_refused_by_name(path: Path, tuning: Any, said: str) -> None:
    with pytest.raises(fo.OptionError, match=said):
        generate(path, tuning=tuning)


def test_it_holds_the_batch_size(path: Path) -> None:
    with pytest.raises(
        fo.OptionError, match="tuning= holds the batch size, so that batch_size= cannot be given beside it"
    ):
        generate(path, tuning=TUNING, batch_size=4)


def test_a_path_of_no_result(path: Path, tmp_path: Path) -> None:
    with pytest.raises(fo.StoreError, match="nothing is there") as missing:
        generate(path, tuning=tmp_path / "none.parquet")
    assert "tuning= names the result of an earlier run" in missing.value.__notes__[0]
    fo.save(fo.Distributions(np.full((2, 2), 0.5, np.float32)), tmp_path / "other.npz")
    with pytest.raises(fo.OptionError, match=r"the record of .*other\.npz does not say how its run was cut"):
        generate(path, tuning=tmp_path / "other.npz")


def test_a_batch_size_that_is_built_in_is_not_changed(tmp_path: Path) -> None:
    fixed = linear(tmp_path / "fixed.onnx", batch=4)
    with pytest.raises(fo.OptionError, match="tuning= says batches of 3 rows, and the model takes batches of 4"):
        generate(fixed, tuning=TUNING)
    assert generate(fixed, tuning={**TUNING, "batch_size": 4}).meta["engine"]["batch_size"] == 4


def test_rows_that_depend_on_their_batch_run_alone_all_the_same(tmp_path: Path) -> None:
    mean = node("ReduceMean", ["z", "axes"], ["m"])
    mixing = linear(
        tmp_path / "mixing.onnx", mean, node("Sub", ["z", "m"], ["y"]), output="y", initializers={"axes": np.array([0])}
    )
    with pytest.warns(UserWarning, match="runs row by row"):
        assert generate(mixing, tuning=TUNING).meta["engine"]["batch_size"] == 1


def test_on_the_command_line(path: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ROWS)
    command = ["generate", str(path), "--data", str(tmp_path / "x.npy"), "--output", "logits", "-o"]

    def run(name: str, tuning: str) -> Any:
        return CliRunner().invoke(main, [*command, str(tmp_path / name), "--tuning", tuning])

    assert run("a.npz", json.dumps(TUNING)).exit_code == 0
    assert run("b.npz", str(tmp_path / "a.npz")).exit_code == 0
    tunings = [fo.load(tmp_path / name).meta["engine"]["tuning"] for name in ("a.npz", "b.npz")]
    assert tunings == [{**TUNING, "chosen": "as recorded", "measured": []}] * 2
    refused = run("c.npz", "{")
    assert refused.exit_code == 2
    assert "'{' is not understood; the path of a result, or a JSON object, was expected" in refused.output
    refused = run("c.npz", '{"batch_size": 0}')
    assert refused.exit_code == 1
    assert "--tuning lacks sessions, threads, spinning" in refused.output
