"""``fo-onnx generate``: one distribution per row of a dataset, into a file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click

from ..control.run_control import begin
from ..errors import DataError, FoOnnxError, OptionError, ResumeError, StoreExistsError
from .shared.options import (
    DATA_HELP,
    KEY_VALUE,
    PATH,
    Parsed,
    common,
    opening_options,
    output_options,
    split_commas,
    take_images,
    together,
)
from .shared.output import pairs, rate_text, show, size_of, size_text, time_text
from .shared.records import class_text, lost_text, parity_line, precision_lines, reason_lines, run_lines, session_text


def _read_tuning(text: str) -> Any:
    """Return the object that a text is, or the path of a result as it is."""
    return json.loads(text) if text.lstrip().startswith("{") else text


run_options = together(
    click.option(
        "--device", default="auto", show_default=True, type=split_commas(str.strip, "devices"),
        help="cpu, cuda, cuda:N, tensorrt, openvino, or several, separated by commas.",
    ),
    click.option(
        "--runner", type=click.Choice(["auto", "onnx", "native"]), default="auto", show_default=True,
        help="ONNX, the model's own framework, or the faster one that works; small jobs run natively.",
    ),
    click.option(
        "--batch-size", default="auto", show_default=True, help="Rows per run of the model.",
        type=Parsed(lambda text: text if text == "auto" else int(text), "a number of rows, or auto,"),
    ),
    click.option(
        "--tuning", metavar="FILE|JSON", type=Parsed(_read_tuning, "the path of a result, or a JSON object,"),
        help="Cut and spread the run as an earlier one: its result, or engine.tuning of its record.",
    ),
    click.option(
        "--precision", default="float32", show_default=True, metavar="NAME",
        help="float32, tf32 on CUDA, auto (the fastest within --tv-budget), or the name of one that auto chose, such as int8.",
    ),
    click.option(
        "--tv-budget", type=float, metavar="TV",
        help="With --precision auto: the 99th percentile of total variation from float32 that is allowed.  [default: 0.01]",
    ),
    click.option("--num-workers", type=int, default=0, show_default=True, help="Threads that read rows ahead."),
    click.option(
        "--on-error", type=click.Choice(["fail", "skip", "record"]), default="fail", show_default=True,
        help="A row that cannot be read or run: stop, leave it out, or write it to OUT.errors.jsonl (for a run folder OUT/errors.jsonl).",
    ),
)  # fmt: skip
"""How rows are read and run."""


@click.command()
@click.argument("model")
@click.option("--data", required=True, metavar="DATA", help=DATA_HELP)
@click.option("--labels", type=PATH, metavar="FILE", help="One class per row: .npy, .json, .txt or .csv.")
@click.option("--no-labels", is_flag=True, help="Leave out the labels that the data hold.")
@click.option("--ids", type=PATH, metavar="FILE", help="One id per row, likewise.  [default: the row's position]")
@click.option(
    "-o", "--out", type=PATH, metavar="OUT", help="A .parquet, .json, .npz, .npy or .safetensors file, or a folder."
)
@click.option("--resume", is_flag=True, help="Resume an unfinished run of OUT, if there is one.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@click.option("--dry-run", is_flag=True, help="Open everything, run one batch, print the plan; write nothing.")
@click.option("--limit", type=int, metavar="ROWS", help="Take the first rows only.")
@run_options
@click.option("--max-errors", type=int, metavar="ROWS", help="Stop at more such rows than this.")
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="Stop then, and keep what is finished.")
@click.option("--keep-logits", is_flag=True, help="Keep the logits beside the distributions.")
@click.option("--meta", multiple=True, type=KEY_VALUE, metavar="KEY=VALUE", help="Your own record, kept in the file.")
@click.option("--progress/--no-progress", default=None, help="A bar on standard error.  [default: on a terminal]")
@opening_options
@output_options
@common
def command(
    model: str, data: str, ids: Path | None, out: Path | None, dry_run: bool, no_labels: bool, **options: Any
) -> None:
    """Write one class distribution per row of a dataset.

    A model of a framework is exported and compared on the first rows; a small job runs natively, and so does a model of which
    that fails, and says why.
    A run that stops early keeps its finished rows, and --resume continues after them.
    """  # fmt: skip
    from ..contracts.options import split_arguments
    from ..engine import Engine
    from .shared.data import load_data, load_ids
    from .shared.models import open_model

    # Check what click cannot check.
    if options["resume"] and options["overwrite"]:
        raise click.UsageError("--resume and --overwrite exclude each other.")
    if no_labels and options["labels"] is not None:
        raise click.UsageError("--labels and --no-labels exclude each other.")
    if out is None and not dry_run:
        raise click.UsageError("Missing option '-o' / '--out'; only --dry-run goes without.")
    try:
        # The command's own time counts too.
        with begin(options["timeout_s"]) as control:
            with control.calling("the opening of the model"):
                opened = open_model(model, options)
            with control.calling("the opening of the data"):
                rows = load_data(data, take_images(options))
                arguments: Any = {**options, "ids": load_ids(ids), "out": out, "meta": dict(options["meta"])}
                arguments["labels"] = False if no_labels else options["labels"]
            of_engine, of_dataset = split_arguments(arguments)
            # Run, or say what a run would do.
            with Engine(opened, **of_engine) as engine:
                result = engine.plan(rows, **of_dataset) if dry_run else engine.generate(rows, **of_dataset)
    except (FoOnnxError, KeyboardInterrupt) as err:
        # Finished rows are kept, unless the run was refused as a whole.
        can_go_on = not dry_run and not isinstance(err, ResumeError | StoreExistsError | OptionError)
        if out is not None and can_go_on and _has_unfinished_run(out):
            again = [
                a for a in click.get_current_context().meta["fo_onnx.arguments"] if a not in ("--overwrite", "--resume")
            ]
            way = "resume it with"
            if isinstance(err, DataError) and err.position is not None and options["on_error"] == "fail":
                # The same command would stop at the same row.
                again, way = [*again, "--on-error", "skip"], "resume it past such rows with"
            err.add_note(f"{way}: {shlex.join(['fo-onnx', *again, '--resume'])}")
        raise
    show(*(_describe_plan(result) if out is None or dry_run else _describe_result(result, out)))


def _has_unfinished_run(out: Path) -> bool:
    folders = (out.with_name(f"{out.name}.partial"), out) if out.name else ()
    return any((f / "run.json").exists() and not (f / "manifest.json").exists() for f in folders)


def _describe_plan(plan: Any) -> tuple[dict[str, Any], str]:
    from dataclasses import asdict

    # For machines: every field, and what is derived from them.
    document = {"dry_run": True, **asdict(plan), "total_s": plan.total_s, "rows_per_s": plan.rows_per_s}
    # For people.
    slower = "reading" if plan.read_s > plan.run_s / plan.sessions else "the model"
    about = "" if plan.total_s is None else f"about {time_text(plan.total_s)}, "
    how = session_text(plan.batch_size, plan.sessions, plan.threads)
    size, memory = plan.output_bytes, plan.memory_bytes
    lines = [
        ("plan", "nothing was written (--dry-run)"),
        ("rows", "not known before the end" if plan.rows is None else plan.rows),
        ("classes", class_text(plan.classes, plan.class_names)),
        ("runner", [f"{plan.runner} on {plan.device}, {how}", *reason_lines(plan.reason)]),
        ("precision", precision_lines(plan.precision)),
        ("parity", parity_line(plan.parity)),
        ("output", None if size is None else f"{plan.out or 'in memory'}, about {size_text(size)}"),
        ("time", f"{about}{rate_text(plan.rows_per_s)} by one batch; {slower} is the slower part"),
        ("memory", None if memory is None else f"{size_text(memory)} with the model opened"),
    ]
    return document, pairs(lines)


def _describe_result(dists: Any, out: Path) -> tuple[dict[str, Any], str]:
    from ..store import target_format

    meta, size = dists.meta, size_of(out)
    document = {
        "path": str(out), "size_bytes": size, "rows": len(dists), "classes": dists.classes, "metrics": dists.metrics(),
        "meta": meta,
    }  # fmt: skip
    # For people: rows that were left out stand next to those that were written.
    errors = out / "errors.jsonl" if target_format(out) is None else f"{out}.errors.jsonl"
    where = f"; see {errors}" if (meta.get("rows") or {}).get("quarantined") else ""
    lines = [("rows", f"{len(dists)} written{lost_text(meta)}{where}"), ("file", f"{out} ({size_text(size)})")]
    return document, pairs([*lines, *run_lines(dists)])
