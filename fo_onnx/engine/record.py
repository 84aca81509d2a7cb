"""What is written down about a run: the meta of its result, and the identity by which a resumed run is known."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
from typing import Any

from .. import digests
from ..options import DataOptions, OutputOptions, RunOptions
from ..protocols import Source
from ..version import __version__
from .pipeline import Outcome
from .selection import Selection
from .session import runtime

SCHEMA = 1


def identity(
    selection: Selection, source: Source, data: DataOptions, output: OutputOptions, run: RunOptions
) -> dict[str, Any]:
    """What must be the same for a run to be the continuation of another."""
    spec = selection.spec
    known = {
        "model": {
            "sha256": selection.sha256,
            "output": spec.output_kind,
            "output_name": output.output_name,
            "output_transform": told(output.output_transform),
            "temperature": spec.temperature,
            "classes": spec.classes,
            "class_names": None if spec.class_names is None else list(spec.class_names),
        },
        "data": {
            "length": source.length,
            "fingerprint": source.fingerprint(),
            "limit": data.limit,
            "preprocessing": source.preprocessing,
            "labels": source.has_labels,
            "id_kind": source.id_kind,
        },
        "options": {"keep_logits": output.keep_logits, "precision": run.precision},
        # Rows are the same in every bit only by the same versions of what runs them.
        "versions": {k: v for k, v in versions(selection).items() if k not in ("python", "numpy", "onnx")},
    }
    # As it comes back from a file: lists for tuples.
    found: dict[str, Any] = json.loads(json.dumps(known))
    return found


def settings(selection: Selection, known: dict[str, Any]) -> dict[str, Any]:
    """What a resumed run takes over from the one begun, and what its unfinished rows are loaded with."""
    tuning = selection.tuning
    return {
        "runner": selection.runners[0].kind,
        "reason": selection.reason,
        "device": selection.runners[0].device,
        "batch_size": tuning.batch_size,
        "sessions": tuning.sessions,
        "threads": tuning.threads,
        "parity": None if selection.parity is None else selection.parity.to_dict(),
        "meta": {
            "model": {"name": selection.spec.name, **known["model"]},
            "data": {"id_kind": known["data"]["id_kind"]},
        },
    }


def meta(
    selection: Selection,
    source: Source,
    known: dict[str, Any],
    outcome: Outcome,
    *,
    rows: dict[str, int],
    on_error: list[tuple[int, str]],
    switched_at: int | None,
    reason: str | None,
    user: dict[str, Any] | None,
) -> dict[str, Any]:
    """The record of a run, as spec.md lists it.

    Args:
        selection: The runners.
        source: The rows.
        known: The run's `identity`.
        outcome: What this part of the run came to.
        rows: How many rows were written, skipped and quarantined, those of an earlier part included.
        on_error: From which position on bad rows were treated how.
        switched_at: Where the native runner stepped in.
        reason: Why.
        user: The caller's own.
    """
    spec, tuning, place, parity = selection.spec, selection.tuning, selection.placement, selection.parity
    seconds = outcome.total_s
    return {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fo_onnx": __version__,
        "model": {
            "name": spec.name,
            "framework": spec.framework,
            "path": None if selection.path is None else selection.path.name,
            "opset": selection.opset,
            **{k: known["model"][k] for k in ("sha256", "class_names", "output", "temperature")},
        },
        "data": {
            "length": sum(rows.values()),
            "on_error": [{"from": position, "on_error": choice} for position, choice in on_error],
            **{k: known["data"][k] for k in ("fingerprint", "id_kind", "labels", "preprocessing")},
        },
        "runner": {
            "kind": selection.runners[0].kind,
            "reason": reason or selection.reason,
            "foreign": [],
            "switched_at": switched_at,
        },
        "engine": {
            "device": selection.runners[0].device,
            "provider": None if place is None else place.provider,
            "cpu_nodes": selection.cpu_nodes,
            "batch_size": tuning.batch_size,
            "sessions": tuning.sessions,
            "threads": tuning.threads,
            "precision": "tf32" if place and place.tf32 else "float32",
            "tf32": bool(place and place.tf32),
            "tuning": tuning.reason,
            "export": selection.export,
        },
        "parity": None
        if parity is None
        else parity.to_dict() | {"measured": "in this run" if selection.path is None else "at export"},
        "rows": rows,
        "timing": {
            "export_s": selection.export_s,
            "first_row_s": outcome.first_row_s,
            "total_s": seconds,
            "rows_per_s": (outcome.written + outcome.bad) / seconds if seconds else None,
        },
        "versions": versions(selection),
        "identity": known,
        "user": dict(user or {}),
    }


def versions(selection: Selection) -> dict[str, str]:
    """Versions of Python, numpy, of onnx and onnxruntime where they ran, and of the framework."""
    import numpy as np

    found = {"python": platform.python_version(), "numpy": np.__version__}
    if selection.runners[0].kind == "onnx":
        import onnx

        found |= {"onnx": onnx.__version__, "onnxruntime": runtime().__version__}
    return found | selection.versions


def told(function: Any) -> str | None:
    """A function by name and by a digest of its code, since every lambda is called alike."""
    if function is None:
        return None
    digest = hashlib.sha256()
    for part in digests.of_callable(function):
        digest.update(part)
    return f"{qualified_name(function)} {digest.hexdigest()[:16]}"


def qualified_name(function: Any) -> str | None:
    """A function as ``module.qualname``, for the record."""
    if function is None:
        return None
    return f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', type(function).__name__)}"
