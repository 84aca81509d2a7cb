"""The one decision on what a model's output means: once per model, from what the caller says, the graph, or a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.options import OutputOptions
from ..contracts.spec import LOGIT_KINDS, ModelSpec, OutputKind, drop_unit_axes
from ..distributions.probabilities import apply_head, check_raw_shape, decide_kind
from ..errors import OutputError
from ..models import graph_head as head
from ..models.class_names import choose_class_names

if TYPE_CHECKING:
    import onnx

BINARY_KINDS = ("binary_logits", "binary_probs")


def with_output_kind(
    spec: ModelSpec,
    raw: NDArray[Any] | Callable[[], NDArray[Any]],
    output: OutputOptions,
    proto: onnx.ModelProto | None = None,
) -> ModelSpec:
    """Return `spec` with the decision: the output's meaning, the classes, their names, the temperature.

    Args:
        spec: The model.
        raw: Its raw output for a calibration batch, or what gives it, which is called if the graph does not say enough.
        output: What the caller says. A temperature of 1 lets a model that has one of its own keep it.
        proto: Its graph, if it has one.

    Raises:
        OutputError: It cannot be known, it is no distribution, or the calibration batch contradicts the caller.
    """
    calibrate = functools.cache(raw if callable(raw) else lambda: raw)
    graph_kind = None
    if proto is not None and output.output == "auto":
        graph_kind = head.output_kind_of_graph(proto, spec.output.name)
    kind: OutputKind
    if output.output != "auto":
        kind = output.output  # type: ignore[assignment]
        _require_consistent(calibrate(), kind, spec.name)
    elif graph_kind is not None:
        # Rows that contradict the graph come out as NaN and are reported.
        kind = graph_kind
    else:
        unbounded = proto is not None and head.is_unbounded(proto, spec.output.name)
        kind = decide_kind(calibrate(), spec.name, unbounded=unbounded)
    if output.temperature != 1 and kind not in LOGIT_KINDS:
        raise OutputError(
            f"{spec.name} gives {kind}, on which temperature={output.temperature:g} cannot act: a temperature divides logits. "
            "Export the model before its softmax, or leave the temperature out."
        )
    # The shape that a graph declares may leave the classes open.
    classes = (_count_classes(kind, spec.output.shape) if graph_kind else None) or _count_classes(
        kind, calibrate().shape
    )
    keeps_own = output.temperature == 1 and kind in LOGIT_KINDS
    temperature = spec.temperature if keeps_own else float(output.temperature)
    spec = replace(spec, output_kind=kind, classes=classes, temperature=temperature)
    return replace(spec, class_names=choose_class_names(output.class_names, spec))


def _count_classes(kind: OutputKind, shape: tuple[int | None, ...]) -> int | None:
    shape = drop_unit_axes(shape)
    return 2 if kind in BINARY_KINDS else shape[-1] if len(shape) == 2 else None


def _require_consistent(raw: NDArray[Any], kind: OutputKind, model_name: str) -> None:
    """Raise an `OutputError` if finite rows of the calibration batch cannot be of the kind that the caller says."""
    check_raw_shape(raw.shape, kind, len(raw), model_name)
    flat = raw.reshape(len(raw), -1)
    probs, _ = apply_head(raw, kind, dtype=np.float64)
    is_wrong = np.isfinite(flat).all(axis=1) & ~np.isfinite(probs).all(axis=1)
    if is_wrong.any():
        row = flat[is_wrong][0]
        mass = np.exp(row).sum() if kind == "log_probs" else row.sum()
        values = f"values from {row.min():.3g} to {row.max():.3g} that sum to {mass:.3g}"
        raise OutputError(
            f"{model_name} was said to give output={kind!r}, but {int(is_wrong.sum())} of its first {len(raw)} rows are no such "
            f"thing (one has {values}{' after exp' if kind == 'log_probs' else ''}). Say output='logits' or leave it to 'auto'."
        )
