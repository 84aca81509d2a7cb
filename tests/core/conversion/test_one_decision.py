"""In output='auto' the decision on logits or probabilities is one per run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import fo_onnx as fo


def logits_of(x: np.ndarray) -> np.ndarray:
    return x @ np.array([[3.0, -1.0, 0.5], [-2.0, 1.0, 1.5]], np.float32)


def changing(x: np.ndarray) -> np.ndarray:
    """Probabilities for rows whose first feature is positive, logits for the others."""
    z = logits_of(x)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    return np.where(x[:, :1] > 0, p, z)


def rows(first: int, then: int) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(first + then, 2)).astype(np.float32)
    x[:first, 0], x[first:, 0] = np.abs(x[:first, 0]) + 0.1, -np.abs(x[first:, 0]) - 0.1
    return x


@pytest.mark.parametrize("batch", [4, 64])
def test_a_second_batch_of_another_kind_is_an_error(batch: int) -> None:
    with pytest.raises(
        fo.OutputError, match="look like probabilities and .* that do not, and one decision holds for a whole run"
    ):
        fo.generate(changing, rows(batch, batch), batch_size=batch)


def test_so_is_one_long_after_the_first_rows() -> None:
    with pytest.raises(
        fo.DataError,
        match=r"row 300 \(id 300\): .*output='auto' took the model's output for probs, as that of the first rows was",
    ) as caught:
        fo.generate(changing, rows(300, 100), batch_size=64)
    assert len(caught.value.finished) == 300


def test_and_it_is_written_down_where_bad_rows_are_gone_past(tmp_path: Path) -> None:
    found = fo.generate(changing, rows(300, 10), out=tmp_path / "rows.parquet", on_error="record")
    assert found.meta["rows"]["quarantined"] == 10
    assert "one decision holds for a whole run" in (tmp_path / "rows.parquet.errors.jsonl").read_text()


def test_logits_that_come_first_stay_logits() -> None:
    found = fo.generate(changing, np.concatenate([rows(0, 256), rows(20, 0)]))
    assert found.meta["model"]["output"] == "logits"


def test_who_says_what_it_is_is_believed() -> None:
    found = fo.generate(changing, rows(0, 50), output="logits")
    assert len(found) == 50
