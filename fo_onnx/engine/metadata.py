"""The record of a run: the meta of its result, and the identity that a resumed run is compared with."""

from __future__ import annotations

import datetime
import json
import platform
from typing import Any

from ..contracts.options import DataOptions, OutputOptions, RunOptions
from ..contracts.parity_report import describe_missing
from ..contracts.source import Source
from ..plugin_kit import digests
from ..runtime.opened import OpenedModel
from ..runtime.session import runtime
from ..store import RunFolder
from ..version import __version__
from .pipeline import RunStats

SCHEMA = 1


def identity(
    opened: OpenedModel, source: Source, data: DataOptions, output: OutputOptions, run: RunOptions
) -> dict[str, Any]:
    """Return what must be the same for a run to be the continuation of another."""
    spec = opened.spec
    described = {
        "model": {
            "sha256": opened.sha256,
            "output": spec.output_kind,
            "output_name": output.output_name,
            "output_transform": describe_function(output.output_transform),
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
        "options": {"keep_logits": output.keep_logits, "precision": run.precision}
        | ({} if run.tv_budget is None else {"tv_budget": run.tv_budget}),
        # Rows are the same in every bit only by the same versions of what runs them.
        "versions": {k: v for k, v in versions(opened).items() if k not in ("python", "numpy", "onnx")},
    }
    # As it comes back from a file: lists for tuples.
    as_json: dict[str, Any] = json.loads(json.dumps(described))
    return as_json


def settings(opened: OpenedModel, run_identity: dict[str, Any]) -> dict[str, Any]:
    """Return what a resumed run takes over from the one begun, and what its unfinished rows are loaded with."""
    plan = opened.plan
    return {
        "runner": opened.runners[0].kind,
        "reason": opened.reason,
        "device": opened.runners[0].device,
        "batch_size": plan.batch_size,
        "sessions": plan.sessions,
        "threads": plan.threads,
        "spinning": plan.spinning,
        "parity": None if opened.parity is None else opened.parity.to_dict(),
        "precision": None if opened.precision is None else opened.precision.to_dict(),
        "meta": {
            "model": {"name": opened.spec.name, **run_identity["model"]},
            "data": {"id_kind": run_identity["data"]["id_kind"]},
        },
    }


def meta(
    opened: OpenedModel,
    source: Source,
    run_identity: dict[str, Any],
    stats: RunStats,
    data: DataOptions,
    user: dict[str, Any] | None,
    folder: RunFolder | None,
) -> dict[str, Any]:
    """Return the record of a run, as docs/files.md lists it.

    Args:
        opened: The runners.
        source: The rows.
        run_identity: The run's `identity`.
        stats: What this part of the run came to.
        data: What happened to bad rows.
        user: The caller's own.
        folder: Where the run is kept, with the record of its earlier parts.
    """
    spec, plan, place = opened.spec, opened.plan, opened.placement
    if folder is None:
        rows = {"written": stats.written, "skipped": stats.bad, "quarantined": 0}
        on_error = [(0, str(data.on_error))]
        switched_at, reason = stats.switched_at, stats.reason
    else:
        rows, on_error = folder.counts, folder.journal.on_error
        switched_at, reason = folder.switched_at, folder.switch_reason
    seconds = stats.total_s
    return {
        "schema": SCHEMA,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fo_onnx": __version__,
        "model": {
            "name": spec.name,
            "framework": spec.framework,
            "path": None if opened.path is None else opened.path.name,
            "opset": opened.opset,
            **{k: run_identity["model"][k] for k in ("sha256", "class_names", "output", "temperature")},
        },
        "data": {
            "length": sum(rows.values()),
            "on_error": [{"from": position, "on_error": choice} for position, choice in on_error],
            **{k: run_identity["data"][k] for k in ("fingerprint", "id_kind", "labels", "preprocessing")},
        },
        "runner": {
            "kind": opened.runners[0].kind,
            "reason": reason or opened.reason,
            "foreign": [],
            "switched_at": switched_at,
            "speed": opened.speed,
        },
        "engine": {
            "device": opened.runners[0].device,
            "provider": None if place is None else place.provider,
            "provider_speedup": opened.provider_speedup,
            "cpu_nodes": opened.cpu_nodes,
            "batch_size": plan.batch_size,
            "sessions": plan.sessions,
            "threads": plan.threads,
            "precision": opened.precision_name,
            "tf32": bool(place and place.tf32),
            "tuning": plan.to_record(),
            "export": opened.export_origin,
            "fusions": dict(opened.fusions),
            "opset": opened.session_opset,
        },
        "parity": _parity_record(opened),
        "precision": None if opened.precision is None else opened.precision.to_dict(),
        "spot_checks": stats.spot_checks,
        "rows": rows,
        "timing": {
            "export_s": opened.export_s,
            "first_row_s": stats.first_row_s,
            "total_s": seconds,
            "rows_per_s": (stats.written + stats.bad) / seconds if seconds else None,
        },
        "versions": versions(opened),
        "identity": run_identity,
        "user": dict(user or {}),
    }


def _parity_record(opened: OpenedModel) -> dict[str, Any]:
    """Return how the model that ran compared with the original, or why there is nothing to say of that."""
    if opened.parity is not None:
        return opened.parity.to_dict() | {"measured": "in this run" if opened.path is None else "at export"}
    reasons = {
        "native": "nothing was compared, since the rows come from the original itself",
        "none": "nothing was compared, since there are no rows",
    }
    of_file = "the file does not say how it compares with the model that it came from; fo_onnx.verify compares them"
    return describe_missing(reasons.get(opened.runners[0].kind, of_file))


def versions(opened: OpenedModel) -> dict[str, str]:
    """Return the versions of Python, numpy, the framework, and of onnx and onnxruntime if they ran."""
    import numpy as np

    numbers = {"python": platform.python_version(), "numpy": np.__version__}
    if opened.runners[0].kind == "onnx":
        import onnx

        numbers |= {"onnx": onnx.__version__, "onnxruntime": runtime().__version__}
    return numbers | opened.versions


def describe_function(function: Any) -> str | None:
    """Return a function's name and a digest of its code, since every lambda has the same name."""
    if function is None:
        return None
    digest = digests.sha256_of(digests.of_callable(function))
    return f"{digests.qualified_name(function)} {digest[:16]}"
