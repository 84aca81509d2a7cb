"""What is recorded of a model or a run, as lines for people: its spec, runner, parity and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...contracts.parity_report import ParityReport
from ...contracts.precision_report import PrecisionReport
from .output import plural, rate_text, time_text

_MOST_NAMES = 10


def class_text(classes: int | None, names: Sequence[str] | None) -> str:
    """Return the number and names of classes: ``10: zero, one, …``."""
    if not names:
        return f"{classes}" if classes else "not known before a run"
    more = f", and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{classes}: {', '.join(names[:_MOST_NAMES])}{more}"


def spec_lines(model: Any) -> list[tuple[str, Any]]:
    """Return what is known of an `OnnxModel`, as names and values."""
    spec = model.spec
    meaning = spec.output_kind or "not decided; that is done with the first rows, or by --output"
    scaled = f", divided by a temperature of {spec.temperature:g}" if spec.temperature != 1 else ""
    return [
        ("model", f"{spec.name}, from {spec.framework}"),
        ("inputs", list(map(str, spec.inputs))),
        ("output", str(spec.output)),
        ("meaning", f"{meaning}{scaled}"),
        ("gives", ", ".join(n for n in (model.probs_output, model.logits_output) if n) or None),
        ("classes", class_text(spec.classes, spec.class_names)),
    ]


def run_lines(dists: Any) -> list[tuple[str, Any]]:
    """Return what distributions and the record of their run say of them, as names and values."""
    meta, timing = dists.meta, dists.meta.get("timing") or {}
    export = f", export and comparison {time_text(timing['export_s'])}" if timing.get("export_s") else ""
    speed, total_s = timing.get("rows_per_s"), timing.get("total_s")
    duration = "" if total_s is None else f" ({time_text(total_s)}{export})"
    return [
        ("classes", class_text(dists.classes, dists.class_names)),
        ("runner", _runner_lines(meta)),
        ("precision", precision_lines(meta.get("precision"))),
        ("parity", parity_line(meta.get("parity"))),
        ("metrics", metrics_lines(dists.metrics())),
        ("speed", f"{rate_text(speed)}{duration}" if speed else None),
    ]


def lost_text(meta: Mapping[str, Any]) -> str:
    """Return how many rows a run has lost, to go after how many it wrote: ``, 1 quarantined``; nothing if none."""
    counts = meta.get("rows") or {}
    return "".join(f", {counts[kind]} {kind}" for kind in ("skipped", "quarantined") if counts.get(kind))


def session_text(batch_size: Any, sessions: Any, threads: Any) -> str:
    """Return how rows are divided: ``batch 64, 2 sessions of 1 thread``."""
    return f"batch {batch_size}, {plural(sessions, 'session')} of {plural(threads, 'thread')}"


def _runner_lines(meta: Mapping[str, Any]) -> list[str] | None:
    runner, engine = meta.get("runner") or {}, meta.get("engine") or {}
    if not runner:
        return None
    switched = runner.get("switched_at")
    kind = runner["kind"] if switched is None else f"{runner['kind']}, native from row {switched} on"
    how = session_text(engine.get("batch_size"), engine.get("sessions"), engine.get("threads"))
    return [f"{kind} on {engine.get('device')}, {how}", *reason_lines(runner.get("reason"))]


def reason_lines(reason: str | None) -> list[str]:
    """Return why a runner was not the first choice, as a line; none if it was."""
    return [f"because {reason}"] if reason else []


def precision_lines(recorded: Mapping[str, Any] | None) -> list[str] | None:
    """Return which precision was chosen, why, and what was tried; ``None`` if float32 was asked for."""
    return None if recorded is None else PrecisionReport.from_dict(recorded).lines()


def parity_line(recorded: Mapping[str, Any] | None) -> str | None:
    """Return a recorded comparison in one line; ``None`` if there is none."""
    report = ParityReport.of_record(recorded)
    if recorded is None or report is None:
        return None
    # A file that changed since, or rows that any model would match, prove nothing.
    if report.unknown is not None:
        return f"unknown: {report.verdict()}"
    flips = plural(report.argmax_flips, "argmax flip")
    measured = f"max total variation {report.max_tv:.1e} over {report.rows} rows, {flips}"
    when = " (at export)" if recorded.get("measured") == "at export" else ""
    if not report.informative:
        return f"{measured}; {report.verdict()}{when}"
    return f"{report.outcome()}: {measured}{when}"


def metrics_lines(metrics: Mapping[str, Any]) -> list[str] | None:
    """Return the metrics in one line or two; ``None`` if there are no rows."""
    if not metrics["rows"]:
        return None
    always = f"mean confidence {metrics['confidence']['mean']:.4f}, mean entropy {metrics['entropy']['mean']:.4f} nats"
    if metrics.get("accuracy") is None:
        return [always]
    labelled = (("accuracy", "accuracy"), ("NLL", "nll"), ("Brier", "brier"), ("ECE", "ece"))
    return [", ".join(f"{name} {metrics[key]:.4f}" for name, key in labelled), always]
