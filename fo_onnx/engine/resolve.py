"""From what the user calls a model to an `OnnxModel`, or to an object and the exporter of its framework."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from .. import plugins
from ..errors import ModelError, ModelNotFoundError, OptionError
from ..model import OnnxModel
from ..options import ModelOptions, OutputOptions
from ..protocols import Exporter
from .callables import CallableExporter


def resolve(model: Any, options: ModelOptions, output: OutputOptions) -> tuple[Any, Exporter | None]:
    """The model and its exporter; ``None`` as exporter goes with an `OnnxModel`.

    Raises:
        ModelError: It is no model, or a file of no known kind.
        TrustError: Reading its file would run code.
    """
    if isinstance(model, OnnxModel):
        _refuse_params(model.path, options)
        if output.output_name in (None, model.spec.output.name):
            return model, None
        return OnnxModel.open(model.path, output_name=output.output_name), None
    if isinstance(model, str | os.PathLike):
        return _from_file(Path(model), options, output)
    found = _exporter(model, options)
    if found is not None:
        return model if options.params is None else found.bound(model, options.params), found
    raise ModelError(
        f"an object of type {type(model).__name__} is no model: an OnnxModel, the path of a model's file, a model of a framework that is "
        f"installed ({', '.join(e.name for e in plugins.exporters()) or 'none is'}) or a callable over numpy arrays was expected."
    )


def _exporter(model: Any, options: ModelOptions) -> Exporter | None:
    if options.framework == CallableExporter.name and callable(model):
        return CallableExporter()
    found = plugins.exporter_for(model, options.framework)
    if found is None and options.params is not None and callable(model):
        # A function that holds nothing tells its framework by the parameters that are given with it.
        found = plugins.exporter_for(functools.partial(model, options.params))
    return CallableExporter() if found is None and callable(model) else found


def _from_file(path: Path, options: ModelOptions, output: OutputOptions) -> tuple[Any, Exporter | None]:
    if path.suffix == ".onnx":
        _refuse_params(path, options)
        return OnnxModel.open(path, output_name=output.output_name), None
    found = plugins.exporter(options.framework) if options.framework else plugins.exporter_for_file(path)
    if found is None:
        known = sorted({s for e in plugins.exporters() for s in e.suffixes})
        there = os.path.exists(path)  # also for names that are too long, or hold a NUL
        missing = "" if there else ", and there is no such file"
        error = ModelError if there else ModelNotFoundError
        raise error(f"opening the model {path}: known suffixes are .onnx, {', '.join(known)}{missing}.")
    model = found.load(path, trust=options.trust)
    return model if options.params is None else found.bound(model, options.params), found


def _refuse_params(path: Path, options: ModelOptions) -> None:
    if options.params is not None:
        raise OptionError(f"params= was given for {path}, an ONNX file, which has its own.")
