"""What a class distribution is: softmax, validation, total variation, entropy, and the meaning of a raw output.

Everything here is numpy. The same head exists as ONNX nodes in `fo_onnx.models.graph_head`; the two must agree.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..contracts.spec import OutputKind, drop_unit_axes
from ..errors import OutputError

Array = NDArray[Any]
UNIT_SUM_TOLERANCE = 1e-3
"""How far the sum of a row of probabilities may be from 1 before the row is no distribution."""


def softmax(z: Array, temperature: float = 1.0) -> Array:
    """Return softmax(z / T) over the last axis, in the dtype of `z`.

    Args:
        z: Logits (n, k), floating.
        temperature: T > 0 (Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2).

    Returns:
        Distributions (n, k). A row with a NaN, or with +inf, is NaN throughout.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = z / z.dtype.type(temperature)
        e = np.exp(scaled - scaled.max(axis=-1, keepdims=True, initial=-np.inf))
        return cast(Array, e / e.sum(axis=-1, keepdims=True))


def apply_head(
    raw: Array, kind: OutputKind, temperature: float = 1.0, *, dtype: Any = np.float32
) -> tuple[Array, Array | None]:
    """Turn a raw output into distributions.

    Args:
        raw: (n, k), or (n,) or (n, 1) for the binary kinds; further axes have the length 1.
        kind: What `raw` means.
        temperature: T of softmax(z / T); acts on logits only.
        dtype: The dtype to compute in and to return: float32 for results, float64 for comparisons.

    Returns:
        Distributions (n, k) and, where `kind` has logits, logits (n, k), both of `dtype`. Rows that are no
        distribution (probabilities outside [0, 1] or without unit sum) are NaN throughout.
    """
    raw = _as_matrix(np.asarray(raw).astype(dtype, copy=False))
    if kind in ("binary_logits", "binary_probs"):
        raw = raw.reshape(-1, 1)
    if kind == "logits":
        return softmax(raw, temperature), raw
    if kind == "log_probs":
        with np.errstate(over="ignore", invalid="ignore"):
            mass = np.exp(raw).sum(axis=1, keepdims=True)
        return _where_valid(np.abs(mass - 1) <= UNIT_SUM_TOLERANCE, softmax(raw, temperature)), raw
    if kind == "probs":
        mass = raw.sum(axis=1, keepdims=True)
        valid = (raw.min(axis=1, keepdims=True, initial=np.inf) >= 0) & (np.abs(mass - 1) <= UNIT_SUM_TOLERANCE)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _where_valid(valid, raw / mass), None
    if kind == "binary_logits":
        logits = np.concatenate([np.zeros_like(raw), raw], axis=1)
        return softmax(logits, temperature), logits
    if kind == "binary_probs":
        return _where_valid((raw >= 0) & (raw <= 1), np.concatenate([1 - raw, raw], axis=1)), None
    raise AssertionError(f"no such kind of output: {kind}")


def _as_matrix(raw: Array) -> Array:
    """Return a raw output of (n, 1, k) or (n, k, 1, 1) as (n, k)."""
    return raw.reshape(cast("tuple[int, ...]", drop_unit_axes(raw.shape))) if raw.ndim > 2 else raw


def _where_valid(valid: Array, probs: Array) -> Array:
    return np.where(valid, probs, probs.dtype.type(np.nan))


def check_raw_shape(shape: tuple[int | None, ...], kind: OutputKind | None, rows: int | None, model_name: str) -> None:
    """Raise an `OutputError` unless a raw output of `shape` can be one distribution per row.

    Args:
        shape: The shape of the raw output, batch axis first; ``None`` for an axis that is open. Of more than two axes all
            but the batch and the classes have the length 1.
        kind: What it means, where that is decided.
        rows: How many rows went in, where that is known.
        model_name: For the message.
    """
    axes = ["n" if d is None and i == 0 else "?" if d is None else str(d) for i, d in enumerate(shape)]
    description = f"{model_name} gives an output of shape ({', '.join(axes)}{',' if len(axes) == 1 else ''})"
    if len(shape) == 0:
        raise OutputError(
            f"{description}, a scalar; one row of class scores per sample was expected, shape (n, classes)."
        )
    if rows is not None and shape[0] != rows:
        raise OutputError(f"{description} for {rows} rows; one row per sample was expected, shape ({rows}, classes).")
    shape = drop_unit_axes(shape)
    if len(shape) > 2:
        if None in shape[1:] and sum(d not in (1, None) for d in shape[1:]) <= 1:
            # An axis that is open may have the length 1; a batch will tell.
            return
        raise OutputError(
            f"{description}; (n, classes) was expected. For a model that gives one row per position or several scores per "
            "class, choose another output with output_name=, or reduce it with output_transform=."
        )
    binary = len(shape) == 1 or shape[1] == 1
    if kind in ("logits", "probs", "log_probs") and binary:
        raise OutputError(
            f"{description}, one number per sample, which is no {kind!r}; say output='binary_logits' or 'binary_probs'."
        )
    if kind in ("binary_logits", "binary_probs") and not binary:
        raise OutputError(f"{description}, which is no {kind!r}: (n,) or (n, 1) was expected.")
    if len(shape) == 2 and shape[1] == 0:
        raise OutputError(f"{description}: no classes.")


def decide_kind(raw: Array, model_name: str = "the model", *, unbounded: bool = False) -> OutputKind:
    """Tell from a calibration batch what a raw output means.

    Args:
        raw: (n, k), (n,) or (n, 1), n ≥ 1; further axes have the length 1.
        model_name: For messages.
        unbounded: Whether the values are known to have no bounds, so that logits may lie within [0, 1] by chance.

    Returns:
        The kind. Exponentials with unit sums are log-probabilities; values in [0, 1] with unit sums are probabilities;
        values outside [0, 1] are logits.

    Raises:
        OutputError: In [0, 1] without unit sums: a multi-label model, or logits that happen to be small. Some rows are
            probabilities and some are not, and it is not by chance.
    """
    raw = np.asarray(raw, dtype=np.float64)
    check_raw_shape(raw.shape, None, None, model_name)
    raw = _as_matrix(raw)
    finite = raw[np.isfinite(raw.reshape(len(raw), -1)).all(axis=1)] if not np.isneginf(raw).any() else raw
    if len(finite) == 0:
        raise OutputError(
            f"{model_name} gives no finite output on the first {len(raw)} rows, so that its meaning cannot be determined. "
            "Look for NaN in the weights or in the data, or say output=."
        )
    within_unit = bool(finite.min() >= 0 and finite.max() <= 1)
    if finite.ndim == 1 or finite.shape[1] == 1:
        if within_unit and not unbounded:
            raise OutputError(
                f"{model_name} gives one number per sample, all within [0, 1], which can be the probability of the second "
                "class or a small logit. Say output='binary_probs' or output='binary_logits'."
            )
        return "binary_logits"
    mass = finite.sum(axis=1)
    like_probs = (finite.min(axis=1) >= 0) & (np.abs(mass - 1) <= UNIT_SUM_TOLERANCE)
    if like_probs.all():
        return "probs"
    # 8 rows, or 3 in succession, are hardly by chance: of normally distributed logits of two classes one row in 4,000 has a
    # unit sum in [0, 1].
    streak = like_probs[:-2] & like_probs[1:-1] & like_probs[2:]
    if streak.any() or like_probs.sum() >= 8:
        raise OutputError(
            f"{model_name} gives {int(like_probs.sum())} rows that look like probabilities and {int((~like_probs).sum())} that do not, "
            "and one decision holds for a whole run. Say output='logits' or output='probs'; if it gives now the ones, now the "
            "others, mend that first."
        )
    if finite.max() <= UNIT_SUM_TOLERANCE and (np.abs(np.exp(finite).sum(axis=1) - 1) <= UNIT_SUM_TOLERANCE).all():
        return "log_probs"
    if within_unit and not unbounded:
        raise OutputError(
            f"{model_name} gives values within [0, 1] whose rows sum to {mass.min():.3g} to {mass.max():.3g}: a multi-label "
            "model (a sigmoid per class) gives no distribution over classes, and logits that happen to be small look "
            "the same. If they are logits, say output='logits'; otherwise reduce them with output_transform=."
        )
    return "logits"


def invalid_rows(probs: Array) -> NDArray[np.int64]:
    """Return the positions of the rows of (n, k) that are no distribution: not finite, negative, or without unit sum."""
    # This runs for every batch, and nearly always every row is valid. One number for the whole array is several times
    # quicker than one per row: if the squares of all deviations sum to less than the tolerance's square, each deviation is
    # below the tolerance. NaN fails every comparison. Values within [0, 1] come first, since sums of others could overflow.
    if (
        probs.size
        and np.minimum.reduce(probs, axis=None) >= 0
        and np.maximum.reduce(probs, axis=None) <= 1 + UNIT_SUM_TOLERANCE
    ):
        deviation = probs.dot(np.ones(probs.shape[1], probs.dtype)) - 1
        if deviation.dot(deviation) <= UNIT_SUM_TOLERANCE**2:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(np.abs(deviation) > UNIT_SUM_TOLERANCE)
    with np.errstate(invalid="ignore", over="ignore"):
        valid = np.abs(probs.sum(axis=1) - 1) <= UNIT_SUM_TOLERANCE
        valid &= probs.min(axis=1, initial=np.inf) >= 0
    return np.flatnonzero(~valid)


def total_variation(p: Array, q: Array) -> NDArray[np.float64]:
    """Return the total variation distance ½ Σ|p − q| of each pair of rows of two (n, k) arrays, in float64; (n,)."""
    return cast("NDArray[np.float64]", 0.5 * np.abs(p.astype(np.float64) - q.astype(np.float64)).sum(axis=1))


def kl_divergence(p: Array, q: Array) -> NDArray[np.float64]:
    """Return the Kullback-Leibler divergence Σ p·ln(p / q) in nats of each pair of rows of two (n, k) arrays; (n,)."""
    p, q = p.astype(np.float64), q.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    return cast("NDArray[np.float64]", terms.sum(axis=1))


def entropy(probs: Array) -> NDArray[np.float64]:
    """Return the Shannon entropy −Σ p·ln p in nats of each row of (n, k); (n,), float64. 0·ln 0 counts as 0."""
    p = probs.astype(np.float64)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return cast("NDArray[np.float64]", -(p * logs).sum(axis=1))
