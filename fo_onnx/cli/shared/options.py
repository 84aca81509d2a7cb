"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ...contracts.spec import OUTPUT_KINDS
from .output import COMMAND, DEBUG

F = TypeVar("F", bound=Callable[..., Any])


class Parsed(click.ParamType):  # type: ignore[type-arg]
    """A text that a function reads."""

    name = "text"

    def __init__(self, read: Callable[[str], Any], expected: str) -> None:
        """Take the function, which raises `ValueError` or `TypeError` for a text that is not as `expected` says."""
        self.read, self.expected = read, expected

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.read(value)
        except (ValueError, TypeError):
            self.fail(f"{value!r} is not understood; {self.expected} was expected.", param, ctx)


# How texts are read


def split_commas(read: Callable[[str], Any], expected: str) -> Parsed:
    """Return the type of values separated by commas: a tuple, or a single value."""

    def parse(text: str) -> Any:
        values = tuple(map(read, text.split(",")))
        return values[0] if len(values) == 1 else values

    return Parsed(parse, expected)


def for_one_input(read: Callable[[str], Any], expected: str) -> Parsed:
    """Return the type of a value that may be for one input by name, ``3,224,224`` or ``image=3,224,224``: name and value."""

    def read_pair(text: str) -> tuple[str | None, Any]:
        name, equals, rest = text.rpartition("=")
        return name if equals else None, read(rest)

    return Parsed(read_pair, f"{expected}, or name={expected},")


def _read_key_value(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _read_shape(text: str) -> tuple[int, ...]:
    sizes = tuple(map(int, text.split(","))) if text else ()
    if any(s < 1 for s in sizes):
        raise ValueError
    return sizes


def _read_dtype(text: str) -> str:
    import numpy as np

    dtype = np.dtype(text)
    if dtype.kind not in "fiub":
        raise ValueError
    return dtype.name


def _read_class_names(text: str) -> list[str]:
    path = Path(text)
    if not os.path.isfile(text):  # also for a list that is too long for a path
        names = [n.strip() for n in text.split(",")]
        if len(names) < 2 or not all(names):
            raise click.BadParameter(f"{text!r} is no file, and no list of at least two names separated by commas.")
        return names
    try:
        content = path.read_text(encoding="utf-8-sig")
        names = json.loads(content) if path.suffix.lower() == ".json" else content.splitlines()
    except (OSError, ValueError) as err:
        raise click.BadParameter(f"the names in {path} cannot be read: {err}") from err
    if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
        raise click.BadParameter(f"{path}: one name per line, or a JSON list of text, was expected.")
    return [n.strip() for n in names]


PATH = click.Path(path_type=Path)
KEY_VALUE = Parsed(_read_key_value, "key=value")
PIXELS = split_commas(int, "SIDE or HEIGHT,WIDTH")
PER_CHANNEL = split_commas(float, "one number or one per channel")
DATA_HELP = "Rows: a .npy, .npz or .parquet file, a folder of images, or package.module:attribute."


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator that adds options in their order."""
    # The option that is added last is shown first.
    return lambda command: functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    key = f"fo_onnx.{param.name}"
    ctx.meta.update({COMMAND: ctx.command, key: value})
    if value and key == DEBUG:
        logging.getLogger("fo_onnx").setLevel(logging.DEBUG)


# Groups of options

common = together(
    click.option(
        "--json", is_flag=True, is_eager=True, expose_value=False, callback=_remember,
        help="Print one JSON document on standard output.",
    ),
    click.option(
        "--debug", is_flag=True, is_eager=True, expose_value=False, callback=_remember,
        help="Show the traceback of an error, and what fo-onnx logs.",
    ),
)  # fmt: skip
"""``--json`` and ``--debug``, which every command has."""

opening_options = together(
    click.option("--weights", type=PATH, metavar="FILE", help="Weights for MODEL: safetensors, a state dict, or .weights.h5."),
    click.option(
        "--params", metavar="PARAMS",
        help="Parameters for a MODEL that holds none (JAX): package.module:attribute, .npz or .safetensors.",
    ),
    click.option("--framework", metavar="NAME", help="The model's framework, if it is not to be detected."),
    click.option("--trust-pickle", "trust", is_flag=True, help="Let a model file run the code it holds: pickles, .h5, Keras lambdas."),
    click.option("--resize", type=PIXELS, metavar="PIXELS", help="Images: shorter side, or height,width."),
    click.option("--crop", type=PIXELS, metavar="PIXELS", help="Images: side, or height,width, cut from the centre."),
    click.option("--mean", type=PER_CHANNEL, metavar="NUMBERS", help="Images: subtracted, on the scale of [0, 1]."),
    click.option("--std", type=PER_CHANNEL, metavar="NUMBERS", help="Images: divided by, per channel."),
    click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Images: the order of axes."),
    click.option("--mode", type=click.Choice(["RGB", "L"]), help="Images: colour or grey."),
)  # fmt: skip
"""How MODEL and DATA are opened: ``weights``, ``params``, ``framework``, ``trust``, and what `take_images` takes."""

output_options = together(
    click.option(
        "--output", type=click.Choice(("auto", *OUTPUT_KINDS)), default="auto", show_default=True,
        help="What the model's output means.",
    ),
    click.option("--output-name", metavar="NAME", help="The output to use if the model has several."),
    click.option("--temperature", type=float, default=1.0, show_default=True, help="T of softmax(z / T)."),
    click.option(
        "--class-names", metavar="NAMES", type=Parsed(_read_class_names, "a list of names, or a file of them,"),
        help="Names of the classes in the order of the columns: a,b,c, or a file (one per line, or a JSON list).",
    ),
    click.option("--model-name", metavar="NAME", help="A name for the model in files and messages."),
)  # fmt: skip
"""What the model's output means: ``output``, ``output_name``, ``temperature``, ``class_names``, ``model_name``."""

tolerance_option = click.option(
    "--tolerance", type=float, default=1e-4, show_default=True, help="Largest total variation that counts as the same."
)
shape_options = together(
    click.option(
        "--input-shape", "input_shapes", multiple=True, type=for_one_input(_read_shape, "SIZE,SIZE,…"), metavar="[NAME=]SIZES",
        help="Shape of one row of an input, as 3,224,224; once per input.",
    ),
    click.option(
        "--input-dtype", "input_dtypes", multiple=True, type=for_one_input(_read_dtype, "DTYPE"), metavar="[NAME=]DTYPE",
        help="Dtype of an input; one for all, or one per --input-shape.  [default: float32]",
    ),
)  # fmt: skip
"""Shapes and dtypes of made-up rows: ``input_shapes`` and ``input_dtypes``, pairs of a name or ``None`` and a value."""


def take_images(options: dict[str, Any]) -> dict[str, Any]:
    """Take out of a command's options how a folder of images is read; return what was given."""
    images = {name: options.pop(name) for name in ("resize", "crop", "mean", "std", "layout", "mode")}
    return {name: value for name, value in images.items() if value is not None}
