"""``fo-onnx bench``: the ways to run a model on this machine, compared; and two results of that."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..contracts.spec import OUTPUT_KINDS
from .shared.options import DATA_HELP, PATH, common, opening_options, take_images
from .shared.output import say, show

if TYPE_CHECKING:
    from ..bench import BenchResult, PathResult

ARGUMENTS = "fo_onnx.bench.arguments"


class _Command(click.Command):
    """A command that remembers its arguments as they were given, for the processes that it starts."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


@click.command(cls=_Command)
@click.argument("model", required=False)
@click.option("--data", metavar="DATA", help=DATA_HELP)
@click.option("--rows", type=int, help="Rows of a turn; about half a second of the quickest path if it is left out.")
@click.option("--turns", type=int, default=7, show_default=True, help="Turns that count.")
@click.option("--batch-size", "batch_sizes", type=int, multiple=True, default=(8, 32, 128), show_default=True,
              help="Sizes to try for paths that do not cut batches themselves; may be repeated.")  # fmt: skip
@click.option(
    "--path", "paths", multiple=True, metavar="NAME", help="Paths to run; may be repeated. All if it is left out."
)
@click.option("--memory", is_flag=True, help="Measure the peak memory of each path, in a process that runs it alone.")
@click.option("--device", default="cpu", show_default=True, help="Where ONNX Runtime runs the model.")
@click.option(
    "--output", type=click.Choice(("auto", *OUTPUT_KINDS)), default="auto", show_default=True,
    help="What the model's output means.",
)  # fmt: skip
@click.option("--output-name", metavar="NAME", help="The output to use if the model has several.")
@click.option(
    "-o", "--out", "outs", type=PATH, multiple=True, metavar="FILE", help=".json, .md or .html; may be repeated."
)
@click.option("--compare", nargs=2, type=PATH, metavar="OLD.json NEW.json", help="Compare two results; nothing is run.")
@click.option("--peak-of", metavar="NAME", hidden=True, help="Run one path once, and print the memory that it took.")
@click.option("--peak-model", type=PATH, hidden=True, help="The file to run it on in the place of MODEL.")
@opening_options
@common
def command(
    model: str | None,
    data: str | None,
    outs: tuple[Path, ...],
    compare: tuple[Path, Path] | None,
    memory: bool,
    peak_of: str | None,
    peak_model: Path | None,
    **options: Any,
) -> None:
    """Compare the ways to run MODEL on this machine, and say which is the quickest.

    Each path runs the same rows. It is checked against the model first, and then they take turns.
    """
    from .. import bench
    from ..bench import saving

    if compare is not None:
        if model is not None:
            raise click.UsageError("--compare takes two files of results, and no model.")
        text = bench.compare(*map(bench.read_result, compare))
        show({"compared": text}, text)
        return
    if model is None or data is None:
        raise click.UsageError("a model and --data are needed, or --compare with two files of results.")
    if peak_of is not None:
        _print_peak(model if peak_model is None else str(peak_model), data, peak_of, options)
        return
    for path in outs:
        saving.require_writable(path)
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / "model.onnx"
        result = _run(model, data, options, exported)
        if memory:
            say("measuring the memory of each path")
            result = _measure_memory(result, click.get_current_context().meta[ARGUMENTS], exported)
    for path in outs:
        saving.save(result, path, f"fo-onnx bench {model}")
    show(result.to_dict(), f"{bench.write_table(result)}\n\n{bench.advise(result)}")


def _run(model: str, data: str, options: dict[str, Any], exported: Path) -> BenchResult:
    from ..bench import run
    from .shared.data import load_data
    from .shared.models import open_model

    images = take_images(options)
    opened = open_model(model, options)
    options["paths"] = options["paths"] or None
    return run(opened, load_data(data, images), keep_export=exported, say=say, **options)


def _measure_memory(result: BenchResult, arguments: list[str], exported: Path) -> BenchResult:
    from ..bench.peak_memory import measure_peaks

    def command_for(path: PathResult) -> list[str]:
        command = [
            sys.executable,
            "-m",
            "fo_onnx",
            "bench",
            *arguments,
            "--peak-of",
            path.name,
            "--rows",
            str(result.rows),
        ]
        if path.batch_size is not None:
            command += ["--batch-size", str(path.batch_size)]
        in_framework = path.is_native or path.details.get("kind") == "native"
        return command if in_framework or not exported.exists() else [*command, "--peak-model", str(exported)]

    return measure_peaks(result, command_for)


def _print_peak(model: str, data: str, name: str, options: dict[str, Any]) -> None:
    from ..bench.benchmark import run_path_once
    from ..bench.peak_memory import KEY
    from ..runtime.memory import peak_memory_bytes
    from .shared.data import load_data
    from .shared.models import open_model

    images = take_images(options)
    if model.endswith(".onnx"):
        options |= {"weights": None, "params": None, "framework": None}
    opened = open_model(model, options)
    names = ("rows", "device", "output", "output_name", "framework", "params", "trust")
    run_path_once(
        opened, load_data(data, images), name, options["batch_sizes"][-1], **{key: options[key] for key in names}
    )
    click.echo(json.dumps({KEY: peak_memory_bytes()}))
