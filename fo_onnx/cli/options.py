"""Options that several commands share, and the types that their texts are read as."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .failures import COMMAND, DEBUG
from .output import JSON

F = TypeVar("F", bound=Callable[..., Any])


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers separated by commas: a tuple, or a single one where one was given."""

    def __init__(self, kind: type[int] | type[float], name: str) -> None:
        self.kind, self.name = kind, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            found = tuple(self.kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not understood; {self.name} was expected.", param, ctx)
        return found[0] if len(found) == 1 else found


class Named(click.ParamType):  # type: ignore[type-arg]
    """A value that may be given to one input by name: ``3,224,224`` or ``image=3,224,224``."""

    def __init__(self, read: Callable[[str], Any], name: str) -> None:
        self.read, self.name = read, name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        name, equals, rest = value.rpartition("=")
        try:
            return (name if equals else None, self.read(rest))
        except (ValueError, TypeError):
            self.fail(f"{value!r} is not understood; {self.name}, or name={self.name}, was expected.", param, ctx)


class KeyValue(click.ParamType):  # type: ignore[type-arg]
    """``key=value``; the value is read as JSON where it is JSON, else taken as text."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        import json

        key, equals, text = value.partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not understood; key=value was expected.", param, ctx)
        try:
            return key, json.loads(text)
        except ValueError:
            return key, text


def _shape(text: str) -> tuple[int, ...]:
    sizes = tuple(int(part) for part in text.split(",")) if text else ()
    if any(s < 1 for s in sizes):
        raise ValueError
    return sizes


def _dtype(text: str) -> str:
    import numpy as np

    found = np.dtype(text)
    if found.kind not in "fiub":
        raise ValueError
    return found.name


PATH = click.Path(path_type=Path)
PIXELS = Numbers(int, "SIDE or HEIGHT,WIDTH")
PER_CHANNEL = Numbers(float, "one number or one per channel")
DATA_HELP = "Rows: a .npy, .npz or .parquet file, a folder of images, or package.module:attribute."


def common(command: F) -> F:
    """``--json`` and ``--debug``, which every command has."""
    command = click.option(
        "--debug", is_flag=True, is_eager=True, expose_value=False, callback=_remember_debug,
        help="Show the traceback of an error, and what fo-onnx logs.",
    )(command)  # fmt: skip
    return click.option(
        "--json", "as_json", is_flag=True, is_eager=True, expose_value=False, callback=_remember_json,
        help="Print one JSON document on standard output.",
    )(command)  # fmt: skip


def _remember_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[COMMAND], ctx.meta[DEBUG] = ctx.command, value
    if value:
        logging.getLogger("fo_onnx").setLevel(logging.DEBUG)


def _remember_json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[JSON] = value


def model_options(command: F) -> F:
    """How MODEL is opened: ``weights``, ``params``, ``framework``, ``trust``."""
    for option in (
        click.option("--trust-pickle", "trust", is_flag=True, help="Let a model file run the code it holds: pickles, .h5, Keras lambdas."),
        click.option("--framework", metavar="NAME", help="The model's framework, where it shall not be told from it."),
        click.option(
            "--params", metavar="PARAMS",
            help="Parameters for a MODEL that holds none (JAX): package.module:attribute, .npz or .safetensors.",
        ),
        click.option(
            "--weights", type=PATH, metavar="FILE",
            help="Weights for MODEL: safetensors, a state dict, or .weights.h5.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def output_options(command: F) -> F:
    """What the model's output means: ``output``, ``output_name``, ``temperature``, ``class_names``, ``model_name``."""
    from ..spec import OUTPUT_KINDS

    for option in (
        click.option("--model-name", metavar="NAME", help="A name for the model in files and messages."),
        click.option(
            "--class-names", metavar="NAMES", callback=_class_names,
            help="Names of the classes in the order of the columns: a,b,c, or a file (one per line, or a JSON list).",
        ),
        click.option("--temperature", type=float, default=1.0, show_default=True, help="T of softmax(z / T)."),
        click.option("--output-name", metavar="NAME", help="Which output is meant where the model has several."),
        click.option(
            "--output", type=click.Choice(("auto", *OUTPUT_KINDS)), default="auto", show_default=True,
            help="What the model's output means.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def _class_names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    path = Path(value)
    if path.is_file():
        import json

        try:
            text = path.read_text(encoding="utf-8-sig")
            names = json.loads(text) if path.suffix.lower() == ".json" else text.splitlines()
        except (OSError, ValueError) as err:
            raise click.BadParameter(f"the names in {path} cannot be read: {err}", ctx, param) from err
        if not isinstance(names, list) or not all(isinstance(n, str) and n.strip() for n in names):
            raise click.BadParameter(f"{path}: one name per line, or a JSON list of text, was expected.", ctx, param)
        return [n.strip() for n in names]
    names = [n.strip() for n in value.split(",")]
    if len(names) < 2 or not all(names):
        raise click.BadParameter(
            f"{value!r} is no file, and no list of at least two names separated by commas.", ctx, param
        )
    return names


def image_options(command: F) -> F:
    """How a folder of images is read; the command gets them as one dict, ``images``, of those that were given."""
    names = ("resize", "crop", "mean", "std", "layout", "mode")

    @functools.wraps(command)
    def gathered(**given: Any) -> Any:
        images = {n: given.pop(n) for n in names}
        return command(images={n: v for n, v in images.items() if v is not None}, **given)

    wrapped: Any = gathered
    for option in (
        click.option("--mode", type=click.Choice(["RGB", "L"]), help="Images: colour or grey."),
        click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Images: the order of axes."),
        click.option("--std", type=PER_CHANNEL, metavar="NUMBERS", help="Images: divided by, per channel."),
        click.option("--mean", type=PER_CHANNEL, metavar="NUMBERS", help="Images: subtracted, on the scale of [0, 1]."),
        click.option("--crop", type=PIXELS, metavar="PIXELS", help="Images: side, or height,width, cut from the centre."),
        click.option("--resize", type=PIXELS, metavar="PIXELS", help="Images: shorter side, or height,width."),
    ):  # fmt: skip
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def shape_options(command: F) -> F:
    """Shapes and dtypes of made-up rows: ``input_shapes`` and ``input_dtypes``, pairs of a name or ``None`` and a value."""
    command = click.option(
        "--input-dtype", "input_dtypes", multiple=True, type=Named(_dtype, "DTYPE"), metavar="[NAME=]DTYPE",
        help="Dtype of an input; one for all, or one per --input-shape.  [default: float32]",
    )(command)  # fmt: skip
    return click.option(
        "--input-shape", "input_shapes", multiple=True, type=Named(_shape, "SIZE,SIZE,…"), metavar="[NAME=]SIZES",
        help="Shape of one row of an input, as 3,224,224; once per input.",
    )(command)  # fmt: skip
