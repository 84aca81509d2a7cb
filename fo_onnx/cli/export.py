"""``fo-onnx export``: a model to an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import DATA_HELP, PATH, common, image_options, model_options, output_options, shape_options
from .output import class_text, pairs, say, show, size_of, size_text


@click.command()
@click.argument("model")
@click.option("-o", "--out", type=PATH, required=True, metavar="OUT.onnx", help="The file to write.")
@click.option("--example", metavar="DATA", help=f"{DATA_HELP} The first 256 rows trace and check the model.")
@shape_options
@model_options
@output_options
@click.option("--opset", type=int, default=18, show_default=True, help="The ONNX operator set.")
@click.option(
    "--tolerance", type=float, default=1e-4, show_default=True, help="Largest total variation that is the same."
)
@click.option("--no-verify", is_flag=True, help="Do not compare the file with the model.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.onnx.")
@image_options
@common
def command(
    model: str,
    out: Path,
    example: str | None,
    input_shapes: Any,
    input_dtypes: Any,
    weights: Path | None,
    params: str | None,
    framework: str | None,
    trust: bool,
    output: str,
    output_name: str | None,
    temperature: float,
    class_names: list[str] | None,
    model_name: str | None,
    opset: int,
    tolerance: float,
    no_verify: bool,
    overwrite: bool,
    images: dict[str, Any],
) -> None:
    """Convert a model to an ONNX file that gives distributions, and compare the two.

    The rows of --example, or made-up rows of --input-shape, trace the model and are run through both.
    """
    from .. import api
    from .data import load_data, random_rows
    from .models import load_model

    if (example is None) == (not input_shapes):
        raise click.UsageError("Give the model's input with either --example or --input-shape.")
    if input_dtypes and not input_shapes:
        raise click.UsageError("--input-dtype is for --input-shape.")
    rows = random_rows(input_shapes, input_dtypes) if example is None else load_data(example, images)
    made = api.export(
        load_model(model, weights=weights, params=params, framework=framework, trust=trust), rows, out,
        framework=framework, output=output, output_name=output_name, temperature=temperature, class_names=class_names,
        model_name=model_name, opset=opset, verify=not no_verify, tolerance=tolerance, overwrite=overwrite, trust=trust,
    )  # fmt: skip
    parity = made.provenance.get("parity")
    if example is None and parity is not None:
        say("the two were compared on random rows; fo-onnx verify compares them on real ones.")
    show(
        {
            "path": str(made.path),
            "size_bytes": size_of(made.path),
            "sha256": made.sha256,
            "spec": made.spec.to_dict(),
            "parity": parity,
            "random_rows": example is None,
        },
        pairs([("file", f"{made.path} ({size_text(size_of(made.path))})"), *spec_lines(made)])
        + (f"\n\n{_table(parity)}" if parity is not None else "\n\nnot compared with the model (--no-verify)"),
    )


def spec_lines(model: Any) -> list[tuple[str, Any]]:
    """What is known of an `OnnxModel`, as names and values."""
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


def _table(parity: dict[str, Any]) -> str:
    from ..parity import ParityReport

    return ParityReport.from_dict(parity).table()
