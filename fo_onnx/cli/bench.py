"""``fo-onnx bench``: the ways to run a model on this machine, compared; and two results of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .shared.options import DATA_HELP, PATH, common, opening_options, take_images
from .shared.output import say, show

WRITTEN = {".json": "results", ".md": "a table", ".html": "a page with plots"}


@click.command()
@click.argument("model", required=False)
@click.option("--data", metavar="DATA", help=DATA_HELP)
@click.option("--rows", type=int, help="Rows of a turn; about half a second of the slowest path if it is left out.")
@click.option("--turns", type=int, default=7, show_default=True, help="Turns that count.")
@click.option("--batch-size", "batch_sizes", type=int, multiple=True, default=(8, 32, 128), show_default=True,
              help="Sizes that native paths are tried with; may be repeated.")  # fmt: skip
@click.option(
    "--path", "paths", multiple=True, metavar="NAME", help="Paths to run; may be repeated. All if it is left out."
)
@click.option(
    "-o", "--out", "outs", type=PATH, multiple=True, metavar="FILE", help=".json, .md or .html; may be repeated."
)
@click.option("--compare", nargs=2, type=PATH, metavar="OLD.json NEW.json", help="Compare two results; nothing is run.")
@opening_options
@common
def command(
    model: str | None, data: str | None, outs: tuple[Path, ...], compare: tuple[Path, Path] | None, **options: Any
) -> None:
    """Compare the ways to run MODEL on this machine, and say which is the quickest.

    Each path runs the same rows. It is checked against the model first, and then they take turns.
    """
    from ..bench import report
    from ..bench.result import read_result

    if compare is not None:
        if model is not None:
            raise click.UsageError("--compare takes two files of results, and no model.")
        old, new = map(read_result, compare)
        text = report.compare(old, new)
        show({"compared": text}, text)
        return
    if model is None or data is None:
        raise click.UsageError("a model and --data are needed, or --compare with two files of results.")
    wrong = [str(path) for path in outs if path.suffix not in WRITTEN]
    if wrong:
        raise click.UsageError(f"--out {wrong[0]}: one of {', '.join(WRITTEN)} was expected.")
    result = _run(model, data, options)
    for path in outs:
        _write(result, path, model)
    show(result.to_dict(), f"{report.write_table(result)}\n\n{report.advise(result)}")


def _run(model: str, data: str, options: dict[str, Any]) -> Any:
    from ..bench.run import run
    from .shared.data import load_data
    from .shared.models import open_model

    images = take_images(options)
    opened = open_model(model, options)
    options["paths"] = options["paths"] or None
    known = {name: options[name] for name in ("rows", "turns", "batch_sizes", "paths", "framework", "params", "trust")}
    return run(opened, load_data(data, images), say=say, **known)


def _write(result: Any, path: Path, title: str) -> None:
    from ..bench.page import write_page
    from ..bench.report import advise, write_table

    if path.suffix == ".json":
        result.write(path)
    elif path.suffix == ".md":
        path.write_text(f"{write_table(result)}\n\n{advise(result)}\n", encoding="utf-8")
    else:
        path.write_text(write_page(result, f"fo-onnx bench {title}"), encoding="utf-8")
