"""The one decision on what a model's output means: once per model, from what the caller says, the graph, or a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.options import OutputOptions
from ..contracts.spec import LOGIT_KINDS, ModelSpec, OutputKind
from ..distributions.probabilities import apply_head, check_raw_shape, decide_kind
from ..errors import OutputError
from ..models import graph_head as head
from ..models.class_names import choose_class_names

if TYPE_CHECKING:
    import onnx

BINARY_KINDS = ("binary_logits", "binary_probs")


def decide_output_kind(
    raw: NDArray[Any] | None,
    options: OutputOptions,
    model_name: str,
    *,
    graph_kind: OutputKind | None = None,
    unbounded: bool = False,
) -> OutputKind:
    """Decide what a raw output means.

    Args:
        raw: A calibration batch's raw output; may be ``None`` if `graph_kind` or `options` say it.
        options: What the caller says.
        model_name: For messages.
        graph_kind: What the graph's last operator says, if it does.
        unbounded: Whether that operator's values have no bounds.

    Raises:
        OutputError: It cannot be known, it is no distribution, or the calibration batch contradicts the caller.
    """
    kind: OutputKind
    if options.output != "auto":
        kind = options.output  # type: ignore[assignment]
        if raw is not None and len(raw):
            check_raw_shape(raw.shape, kind, len(raw), model_name)
            _require_consistent(raw, kind, model_name)
    elif graph_kind is not None:
        kind = graph_kind
    else:
        assert raw is not None
        kind = decide_kind(raw, model_name, unbounded=unbounded)
    if options.temperature != 1 and kind not in LOGIT_KINDS:
        raise OutputError(
            f"{model_name} gives {kind}, on which temperature={options.temperature:g} cannot act: a temperature divides logits. "
            "Export the model before its softmax, or leave the temperature out."
        )
    return kind


def with_output_kind(
    spec: ModelSpec, raw: NDArray[Any], output: OutputOptions, proto: onnx.ModelProto | None = None
) -> ModelSpec:
    """Return `spec` with the decision: the output's meaning, the classes, their names, the temperature.

    Args:
        spec: The model.
        raw: Its raw output for a calibration batch.
        output: What the caller says.
        proto: Its graph, if it has one.
    """
    check_raw_shape(raw.shape, None, len(raw), spec.name)
    graph_kind, unbounded = None, False
    if proto is not None and output.output == "auto":
        graph_kind = head.output_kind_of_graph(proto, spec.output.name)
        unbounded = head.is_unbounded(proto, spec.output.name)
    kind = decide_output_kind(raw, output, spec.name, graph_kind=graph_kind, unbounded=unbounded)
    classes = count_classes(kind, raw.shape)
    spec = replace(spec, output_kind=kind, classes=classes, temperature=float(output.temperature))
    return replace(spec, class_names=choose_class_names(output.class_names, spec))


def count_classes(kind: OutputKind, shape: tuple[int | None, ...]) -> int | None:
    """Return the number of classes that a raw output of `shape` has; ``None`` if the shape leaves it open."""
    return 2 if kind in BINARY_KINDS else shape[-1] if len(shape) == 2 else None


def _require_consistent(raw: NDArray[Any], kind: OutputKind, model_name: str) -> None:
    """Raise an `OutputError` if finite rows of the calibration batch cannot be of the kind that the caller says."""
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
