"""labels=False: what the data hold for labels is left out, whatever it is; what the inputs are does not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.contracts.options import DataOptions
from fo_onnx.sources import open_source

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
Y = np.array([0, 1, -1, 7, 2])


def forms(tmp_path: Path) -> dict[str, Any]:
    np.savez(tmp_path / "rows.npz", x=X, y=Y)
    return {
        "arrays": (X, Y),
        "dict": {"x": X, "label": Y},
        "pairs": list(zip(X, Y.tolist(), strict=True)),
        "batches": iter([(X[:3], Y[:3]), (X[3:], Y[3:])]),
        "file": tmp_path / "rows.npz",
    }


@pytest.mark.parametrize("form", ["arrays", "dict", "pairs", "batches", "file"])
def test_rows_come_without_them(form: str, tmp_path: Path) -> None:
    source = open_source(forms(tmp_path)[form], DataOptions(labels=False))
    assert not source.has_labels
    batches = list(source.batches(2))
    assert all(b.labels is None for b in batches)
    assert np.array_equal(np.concatenate([next(iter(b.inputs.values())) for b in batches]), X)


def test_labels_that_are_no_class_are_no_matter() -> None:
    soft = np.full((5, 3), 1 / 3, np.float32)

    def model(x: np.ndarray) -> np.ndarray:
        return x @ np.eye(3, dtype=np.float32)

    with pytest.raises(fo.DataError, match="labels=False"):
        fo.generate(model, [(x, y[None]) for x, y in zip(X, Y, strict=True)], input_getter=lambda s: s[0], labels=soft)
    assert fo.generate(model, (X, Y), labels=False).labels is None
