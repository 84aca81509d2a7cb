"""Estimators in files: pickles, which need the user's word."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn_rows import EXPORTER, classes, fit, grid

import fo_onnx as fo
from fo_onnx.errors import ModelError, ModelNotFoundError, TrustError
from fo_onnx.models import plugins


@pytest.fixture
def model() -> Any:
    return fit(make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)))


@pytest.mark.parametrize("suffix", [".joblib", ".pkl", ".pickle"])
def test_files_that_are_trusted(model: Any, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    joblib.dump(model, path) if suffix == ".joblib" else path.write_bytes(pickle.dumps(model))

    dists = fo.generate(path, grid(100, 4), trust=True, progress=False)

    assert dists.meta["runner"]["kind"] == "onnx"
    np.testing.assert_allclose(dists.probs, model.predict_proba(grid(100, 4)), atol=1e-6)


class Runs:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_files_that_are_not_trusted_run_nothing(tmp_path: Path) -> None:
    path, trace = tmp_path / "model.joblib", tmp_path / "trace"
    joblib.dump(Runs(trace), path)

    with pytest.raises(TrustError, match=r"trust=True \(--trust-pickle on the command line\)"):
        fo.generate(path, grid(10))
    assert not trace.exists()

    with pytest.raises(ModelError, match="holds a NoneType, no estimator"):
        fo.generate(path, grid(10), trust=True)
    assert trace.exists()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no such file"):
        EXPORTER.load(tmp_path / "none.joblib", trust=True)
    (tmp_path / "half.pkl").write_bytes(pickle.dumps(list(range(1000)))[:100])
    with pytest.raises(ModelError, match=r"reading the estimator in .*half\.pkl failed"):
        EXPORTER.load(tmp_path / "half.pkl", trust=True)


def test_a_file_of_another_version(model: Any, tmp_path: Path) -> None:
    import sklearn

    content = pickle.dumps(fit(LogisticRegression()))
    now = sklearn.__version__.encode()
    older = b"0" + now[1:]
    (tmp_path / "old.pkl").write_bytes(content.replace(now, older))
    with pytest.raises(ModelError, match=rf"written with scikit-learn {older.decode()}.*Install scikit-learn=="):
        EXPORTER.load(tmp_path / "old.pkl", trust=True)


def test_weights_are_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="weights in files are not read for models of sklearn"):
        plugins.load_weights(EXPORTER, model, tmp_path / "w.safetensors")


def test_the_command_line(tmp_path: Path) -> None:
    x = grid(300, 4)
    names = np.array(["cat", "dog", "eel"])[classes(x)]
    model = make_pipeline(StandardScaler(), RandomForestClassifier(5)).fit(x, names)
    joblib.dump(model, tmp_path / "model.joblib")
    np.savez(tmp_path / "rows.npz", x=x, y=names)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fo_onnx", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )

    refused = command("generate", "model.joblib", "--data", "rows.npz", "-o", "out.parquet")
    assert refused.returncode == 1
    assert "--trust-pickle" in refused.stderr

    trusted = ("model.joblib", "--trust-pickle", "--data", "rows.npz")
    done = command("generate", *trusted, "-o", "out.parquet", "--runner", "onnx")
    assert done.returncode == 0, done.stderr
    dists = fo.load(tmp_path / "out.parquet")
    np.testing.assert_allclose(dists.probs, model.predict_proba(x), atol=1e-6)
    assert np.asarray(dists.class_names)[dists.labels].tolist() == names.tolist()

    exported = command("export", "model.joblib", "--trust-pickle", "--example", "rows.npz", "-o", "model.onnx")
    assert exported.returncode == 0, exported.stderr
    verified = command(
        "verify", "model.onnx", "--against", "model.joblib", "--trust-pickle", "--data", "rows.npz", "--json"
    )
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["passed"]
