"""``fo-onnx verify``: an exported file against the model it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .failures import FAILED
from .options import DATA_HELP, PATH, common, image_options, model_options
from .output import show

WEIGHTS = "If the file was exported with --weights, give the same --weights here, beside --against."


@click.command()
@click.argument("file", type=PATH, metavar="FILE.onnx")
@click.option("--against", required=True, metavar="MODEL", help="The model that the file came from.")
@click.option("--data", required=True, metavar="DATA", help=DATA_HELP)
@click.option("--rows", type=int, default=256, show_default=True, help="How many rows are compared, from the first on.")
@click.option(
    "--tolerance", type=float, default=1e-4, show_default=True, help="Largest total variation that is the same."
)
@click.option("--device", default="auto", show_default=True, help="Where the file runs.")
@model_options
@image_options
@common
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    against: str,
    data: str,
    rows: int,
    tolerance: float,
    device: str,
    weights: Path | None,
    params: str | None,
    framework: str | None,
    trust: bool,
    images: dict[str, Any],
) -> None:
    """Compare an exported file with the model it came from, on real rows.

    The exit code is 1 where they are not the same.
    """
    from .. import api
    from .data import load_data
    from .models import load_model

    report = api.verify(
        file, load_model(against, weights=weights, params=params, framework=framework, trust=trust), load_data(data, images),
        rows=rows, tolerance=tolerance, device=device, framework=framework, trust=trust,
    )  # fmt: skip
    differ = report.deterministic and report.problem is None and not report.passed
    advice = WEIGHTS if differ and weights is None else None
    show(
        {**report.to_dict(), "verdict": report.verdict(), "advice": advice},
        report.table() + ("" if advice is None else f"\n\n{advice}"),
    )
    if not report.passed:
        ctx.exit(FAILED)
