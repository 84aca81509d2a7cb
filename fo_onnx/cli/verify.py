"""``fo-onnx verify``: an exported file against the model it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .shared.options import DATA_HELP, PATH, common, opening_options, take_images, tolerance_option
from .shared.output import show

ADVICE = "If the file was exported with --weights, give the same --weights here, beside --against."


@click.command()
@click.argument("file", type=PATH, metavar="FILE.onnx")
@click.option("--against", required=True, metavar="MODEL", help="The model that the file came from.")
@click.option("--data", required=True, metavar="DATA", help=DATA_HELP)
@click.option("--rows", type=int, default=256, show_default=True, help="How many rows are compared, from the first on.")
@tolerance_option
@click.option("--device", default="auto", show_default=True, help="Where the file runs.")
@opening_options
@common
def command(file: Path, against: str, data: str, **options: Any) -> None:
    """Compare an exported file with the model it came from, on real rows.

    The exit code is 1 if they are not the same.
    """
    from .. import api
    from .shared.data import load_data
    from .shared.models import open_model

    weights, images = options["weights"], take_images(options)
    model = open_model(against, options)
    report = api.verify(file, model, load_data(data, images), **options)
    # Forgotten weights are the commonest cause of a difference.
    differ = report.deterministic and report.problem is None and not report.passed
    advice = ADVICE if differ and weights is None else None
    document = {**report.to_dict(), "verdict": report.verdict(), "advice": advice}
    show(document, report.table() + ("" if advice is None else f"\n\n{advice}"), failed=not report.passed)
