"""``fo-onnx generate``: one distribution per row of a dataset, into a file."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from ..errors import FoOnnxError, OptionError, ResumeError, StoreExistsError
from ..run_control import begin
from .options import DATA_HELP, PATH, KeyValue, common, image_options, model_options, output_options
from .output import class_text, cut_text, pairs, rate_text, show, size_of, size_text, time_text
from .parity_text import parity_line


def _devices(ctx: click.Context, param: click.Parameter, value: str) -> str | tuple[str, ...]:
    names = tuple(n.strip() for n in value.split(","))
    return names[0] if len(names) == 1 else names


def _batch_size(ctx: click.Context, param: click.Parameter, value: str) -> int | str:
    if value == "auto":
        return value
    try:
        return int(value)
    except ValueError as err:
        raise click.BadParameter(f"{value!r} is not understood; a number of rows, or auto, was expected.") from err


@click.command()
@click.argument("model")
@click.option("--data", required=True, metavar="DATA", help=DATA_HELP)
@click.option("--labels", type=PATH, metavar="FILE", help="One class per row: .npy, .json, .txt or .csv.")
@click.option("--ids", type=PATH, metavar="FILE", help="One id per row, likewise.  [default: the row's position]")
@click.option(
    "-o",
    "--out",
    type=PATH,
    metavar="OUT",
    help="A .parquet, .json, .npz, .npy or .safetensors file, or a folder.",
)
@click.option("--resume", is_flag=True, help="Go on with an unfinished run on its way to OUT, if there is one.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@click.option("--dry-run", is_flag=True, help="Open everything, run one batch, print the plan; write nothing.")
@click.option("--limit", type=int, metavar="ROWS", help="Take the first rows only.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    callback=_devices,
    help="cpu, cuda, cuda:N, tensorrt, openvino, or several, separated by commas.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "onnx", "native"]),
    default="auto",
    show_default=True,
    help="ONNX, the model's own framework, or the first that works.",
)
@click.option(
    "--batch-size", default="auto", show_default=True, callback=_batch_size, help="Rows per run of the model."
)
@click.option("--precision", type=click.Choice(["float32", "tf32"]), default="float32", show_default=True)
@click.option("--num-workers", type=int, default=0, show_default=True, help="Threads that read rows ahead.")
@click.option(
    "--on-error",
    type=click.Choice(["fail", "skip", "record"]),
    default="fail",
    show_default=True,
    help="A row that cannot be read or run: stop, leave it out, or write it to OUT.errors.jsonl.",
)
@click.option("--max-errors", type=int, metavar="ROWS", help="Stop at more such rows than this.")
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="Stop then, and keep what is finished.")
@click.option("--keep-logits", is_flag=True, help="Keep the logits beside the distributions.")
@click.option("--meta", multiple=True, type=KeyValue(), metavar="KEY=VALUE", help="Your own record, kept in the file.")
@click.option("--progress/--no-progress", default=None, help="A bar on standard error.  [default: on a terminal]")
@model_options
@output_options
@image_options
@common
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str,
    data: str,
    labels: Path | None,
    ids: Path | None,
    out: Path | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    weights: Path | None,
    params: str | None,
    images: dict[str, Any],
    meta: tuple[tuple[str, Any], ...],
    **options: Any,
) -> None:
    """Write one class distribution per row of a dataset.

    A model of a framework is exported and compared on the first rows; where that fails it runs natively, and says why.
    A run that stops early keeps its finished rows, and --resume goes on from them.
    """  # fmt: skip
    from .. import api
    from .data import load_data, load_ids
    from .models import load_model

    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite exclude each other.")
    if out is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--out'; only --dry-run goes without.")
    try:
        # The command's own time counts too.
        with begin(options["timeout_s"]) as control:
            with control.calling("the opening of the model"):
                opened = load_model(
                    model, weights=weights, params=params, framework=options["framework"], trust=options["trust"]
                )
            with control.calling("the opening of the data"):
                rows = load_data(data, images)
                options |= {"labels": None if labels is None else str(labels), "ids": load_ids(ids)}
            if dry_run:
                from .plan import dry_run as plan

                found = plan(opened, rows, out=out, resume=resume, overwrite=overwrite, **options)
                show(found.document(), found.text())
                return
            assert out is not None
            dists = api.generate(opened, rows, out=out, resume=resume, overwrite=overwrite, meta=dict(meta), **options)
    except (FoOnnxError, KeyboardInterrupt) as err:
        if (
            out is not None
            and not dry_run
            and _unfinished(out)
            and not isinstance(err, ResumeError | StoreExistsError | OptionError)
        ):
            err.add_note(f"go on with: {_again(ctx)}")
        raise
    document, text = _summary(dists, out)
    show(document, text)


def _unfinished(out: Path) -> bool:
    """Whether there is a run on its way to `out`."""
    beside = out.with_name(f"{out.name}.partial")
    return any((f / "run.json").exists() and not (f / "manifest.json").exists() for f in (beside, out))


def _again(ctx: click.Context) -> str:
    arguments = [a for a in ctx.meta["fo_onnx.arguments"] if a not in ("--overwrite", "--resume")]
    return shlex.join(["fo-onnx", *arguments, "--resume"])


def _summary(dists: Any, out: Path) -> tuple[dict[str, Any], str]:
    meta, metrics = dists.meta, dists.metrics()
    document = {
        "path": str(out), "size_bytes": size_of(out), "rows": len(dists), "classes": dists.classes,
        "metrics": metrics, "meta": meta,
    }  # fmt: skip
    rows, timing = meta.get("rows") or {}, meta.get("timing") or {}
    lost = {k: rows.get(k, 0) for k in ("skipped", "quarantined") if rows.get(k)}
    where = f"; see {out}.errors.jsonl" if "quarantined" in lost else ""
    speed = timing.get("rows_per_s")
    lines = [
        ("rows", f"{len(dists)} written" + "".join(f", {n} {k}" for k, n in lost.items()) + where),
        ("classes", class_text(dists.classes, dists.class_names)),
        ("file", f"{out} ({size_text(size_of(out))})"),
        ("runner", runner_lines(meta)),
        ("parity", parity_line(meta.get("parity"))),
        ("metrics", metrics_lines(metrics)),
        ("speed", None if not speed else f"{rate_text(speed)} ({_times(timing)})"),
    ]
    return document, pairs(lines)


def runner_lines(meta: dict[str, Any]) -> list[str] | None:
    """The runner of a record with how it ran and why; ``None`` where there is no record."""
    runner, engine = meta.get("runner") or {}, meta.get("engine") or {}
    if not runner:
        return None
    how = cut_text(engine.get("batch_size"), engine.get("sessions"), engine.get("threads"))
    switched = runner.get("switched_at")
    kind = runner["kind"] if switched is None else f"{runner['kind']}, native from row {switched} on"
    reason = [f"because {runner['reason']}"] if runner.get("reason") else []
    return [f"{kind} on {engine.get('device')}, {how}", *reason]


def metrics_lines(metrics: dict[str, Any]) -> list[str] | None:
    """The metrics in one line or two; ``None`` where there are no rows."""
    if not metrics["rows"]:
        return None
    always = f"mean confidence {metrics['confidence']['mean']:.4f}, mean entropy {metrics['entropy']['mean']:.4f} nats"
    if metrics.get("accuracy") is None:
        return [always]
    named = (("accuracy", "accuracy"), ("NLL", "nll"), ("Brier", "brier"), ("ECE", "ece"))
    return [", ".join(f"{name} {metrics[key]:.4f}" for name, key in named), always]


def _times(timing: dict[str, Any]) -> str:
    export = timing.get("export_s")
    return time_text(timing["total_s"]) + (f", export and comparison {time_text(export)}" if export else "")
