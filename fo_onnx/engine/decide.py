"""The one decision on what a model's output means: once per model, from what the caller says, the graph, or a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, OutputError
from ..options import OutputOptions
from ..probabilities import apply_head, check_raw_shape, decide_kind
from ..spec import LOGIT_KINDS, ModelSpec, OutputKind

BINARY_KINDS = ("binary_logits", "binary_probs")


def decide(raw: NDArray[Any] | None, options: OutputOptions, told: OutputKind | None, who: str) -> OutputKind:
    """What the raw output means.

    Args:
        raw: A calibration batch's raw output; ``None`` where `told` or `options` settle it.
        options: What the caller says.
        told: What the graph tells.
        who: The model's name, for messages.

    Raises:
        OutputError: It cannot be told, it is no distribution, or the calibration batch contradicts the caller.
    """
    kind: OutputKind
    if options.output != "auto":
        kind = options.output  # type: ignore[assignment]
        if raw is not None and len(raw):
            check_raw_shape(raw.shape, kind, len(raw), who)
            _contradiction(raw, kind, who)
    elif told is not None:
        kind = told
    else:
        assert raw is not None
        kind = decide_kind(raw, who)
    if options.temperature != 1 and kind not in LOGIT_KINDS:
        raise OutputError(
            f"{who} gives {kind}, on which temperature={options.temperature:g} cannot act: a temperature divides logits. "
            "Export the model before its softmax, or leave the temperature out."
        )
    return kind


def class_count(kind: OutputKind, shape: tuple[int | None, ...]) -> int | None:
    """The number of classes that a raw output of `shape` has; ``None`` where the shape leaves it open."""
    return 2 if kind in BINARY_KINDS else shape[-1] if len(shape) == 2 else None


def check_class_names(given: Sequence[str] | None, spec: ModelSpec) -> tuple[str, ...] | None:
    """The class names that hold: those given, else the model's own.

    Raises:
        OptionError: Their number is not the model's, or they are other than the model's own.
    """
    if given is None:
        return spec.class_names
    given = tuple(given)
    if spec.classes is not None and len(given) != spec.classes:
        raise OptionError(f"class_names holds {len(given)} names, and {spec.name} has {spec.classes} classes.")
    if spec.class_names is not None and given != spec.class_names:
        raise OptionError(
            f"class_names are other than those that {spec.name} was exported with: given {list(given)}, exported "
            f"{list(spec.class_names)}. To reorder columns use Distributions.align()."
        )
    return given


def _contradiction(raw: NDArray[Any], kind: OutputKind, who: str) -> None:
    finite = np.isfinite(raw.reshape(len(raw), -1)).all(axis=1)
    probs, _ = apply_head(raw, kind, dtype=np.float64)
    wrong = finite & ~np.isfinite(probs).all(axis=1)
    if wrong.any():
        row = raw.reshape(len(raw), -1)[wrong][0]
        mass = np.exp(row).sum() if kind == "log_probs" else row.sum()
        found = f"values from {row.min():.3g} to {row.max():.3g} that sum to {mass:.3g}"
        raise OutputError(
            f"{who} was said to give output={kind!r}, but {int(wrong.sum())} of its first {len(raw)} rows are no such thing "
            f"(one has {found}{' after exp' if kind == 'log_probs' else ''}). Say output='logits' or leave it to 'auto'."
        )
