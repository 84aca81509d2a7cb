"""``fo-onnx export``: a model to an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .shared.options import (
    DATA_HELP,
    PATH,
    common,
    opening_options,
    output_options,
    shape_options,
    take_images,
    tolerance_option,
)
from .shared.output import pairs, say, show, size_of, size_text


@click.command()
@click.argument("model")
@click.option("-o", "--out", type=PATH, required=True, metavar="OUT.onnx", help="The file to write.")
@click.option("--example", metavar="DATA", help=f"{DATA_HELP} The first 256 rows trace and check the model.")
@shape_options
@opening_options
@output_options
@click.option("--opset", type=int, default=18, show_default=True, help="The ONNX operator set.")
@tolerance_option
@click.option("--no-verify", is_flag=True, help="Do not compare the file with the model.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.onnx.")
@common
def command(
    model: str, out: Path, example: str | None, input_shapes: Any, input_dtypes: Any, no_verify: bool, **options: Any
) -> None:
    """Convert a model to an ONNX file that gives distributions, and compare the two.

    The rows of --example, or made-up rows of --input-shape, trace the model and are run through both.
    """
    from .. import api
    from ..contracts.parity_report import ParityReport
    from .shared.data import load_data, random_rows
    from .shared.models import open_model
    from .shared.records import spec_lines

    # Rows of the user, or made-up ones.
    if (example is None) == (not input_shapes):
        raise click.UsageError("Give the model's input with either --example or --input-shape.")
    if input_dtypes and not input_shapes:
        raise click.UsageError("--input-dtype is for --input-shape.")
    images = take_images(options)
    rows = random_rows(input_shapes, input_dtypes) if example is None else load_data(example, images)
    # Export and compare.
    original = open_model(model, options)
    exported = api.export(original, rows, out, verify=not no_verify, **options)
    parity = exported.provenance.get("parity")
    if example is None and parity is not None:
        say("the two were compared on random rows; fo-onnx verify compares them on real ones.")
    # Print what is in the file, and how the two compared.
    size_bytes = size_of(exported.path)
    document = {
        "path": str(exported.path), "size_bytes": size_bytes, "sha256": exported.sha256, "spec": exported.spec.to_dict(),
        "parity": parity, "random_rows": example is None,
    }  # fmt: skip
    comparison = (
        "not compared with the model (--no-verify)" if parity is None else ParityReport.from_dict(parity).table()
    )
    lines = [("file", f"{exported.path} ({size_text(size_bytes)})"), *spec_lines(exported)]
    show(document, f"{pairs(lines)}\n\n{comparison}")
