"""``fo-onnx verify``: an exported file against the model it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .shared.failures import FAILED
from .shared.options import DATA_HELP, PATH, common, image_options, model_options, tolerance_option
from .shared.output import show

ADVICE = "If the file was exported with --weights, give the same --weights here, beside --against."


@click.command()
@click.argument("file", type=PATH, metavar="FILE.onnx")
@click.option("--against", required=True, metavar="MODEL", help="The model that the file came from.")
@click.option("--data", required=True, metavar="DATA", help=DATA_HELP)
@click.option("--rows", type=int, default=256, show_default=True, help="How many rows are compared, from the first on.")
@tolerance_option
@click.option("--device", default="auto", show_default=True, help="Where the file runs.")
@model_options
@image_options
@common
@click.pass_context
def command(
    ctx: click.Context,
    /,
    file: Path,
    against: str,
    data: str,
    weights: Path | None,
    params: str | None,
    images: dict[str, Any],
    **options: Any,
) -> None:
    """Compare an exported file with the model it came from, on real rows.

    The exit code is 1 if they are not the same.
    """
    from .. import api
    from .shared.data import load_data
    from .shared.models import load_model, load_params

    model = load_model(against, weights=weights, framework=options["framework"], trust=options["trust"])
    report = api.verify(file, model, load_data(data, images), params=load_params(params), **options)
    # Forgotten weights are the commonest cause of a difference.
    differ = report.deterministic and report.problem is None and not report.passed
    advice = ADVICE if differ and weights is None else None
    document = {**report.to_dict(), "verdict": report.verdict(), "advice": advice}
    show(document, report.table() + ("" if advice is None else f"\n\n{advice}"))
    if not report.passed:
        ctx.exit(FAILED)
