"""From what the user calls a model to a file, or to an object and the plugin of its framework."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..contracts.exporter import Exporter
from ..contracts.options import ModelOptions, OutputOptions
from ..contracts.spec import InputSignature, ModelSpec
from ..errors import ModelError, ModelNotFoundError, OptionError
from . import plugins
from .callables import CallableExporter
from .foreign_file import require_class_scores
from .onnx_model import LoadedOnnx, OnnxModel, load_onnx


@dataclass(frozen=True)
class ResolvedModel:
    """A model before anything runs.

    Attributes:
        model: A file, parsed if it was opened here; or a model of a framework, with its parameters.
        plugin: The framework's plugin; ``None`` for a file.
    """

    model: LoadedOnnx | OnnxModel | Any
    plugin: Exporter | None

    @property
    def onnx(self) -> OnnxModel | None:
        """Return the file; ``None`` for a model of a framework."""
        if self.plugin is not None:
            return None
        model: OnnxModel = self.model.model if isinstance(self.model, LoadedOnnx) else self.model
        return model

    @property
    def spec(self) -> ModelSpec | None:
        """Return the spec of a file; ``None`` for a model of a framework."""
        return None if self.onnx is None else self.onnx.spec

    @property
    def signature(self) -> InputSignature | None:
        """Return the inputs that the model takes, as far as they are known."""
        if self.plugin is not None:
            return self.plugin.signature(self.model)
        return None if self.spec is None else self.spec.signature

    def without_graph(self) -> ResolvedModel:
        """Return the same without the parsed graph, which is used by one run and takes as much memory as the weights."""
        return self if self.plugin is not None else replace(self, model=self.onnx)


def resolve_model(model: Any, options: ModelOptions, output: OutputOptions) -> ResolvedModel:
    """Find out what `model` is.

    Raises:
        ModelError: It is no model, or a file of no known kind.
        OutputError: A file whose output cannot be one row of class scores per sample, without an ``output_transform``.
        TrustError: Reading its file would run code.
    """
    if isinstance(model, LoadedOnnx):
        return _resolve_onnx(model, output)
    if isinstance(model, OnnxModel):
        _refuse_params(model.path, options)
        if output.output_name in (None, model.spec.output.name):
            return _resolve_onnx(model, output)
        return _resolve_onnx(load_onnx(model.path, output_name=output.output_name), output)
    if isinstance(model, str | os.PathLike):
        return _open_file(Path(model), options, output)
    plugin = _find_plugin(model, options)
    if plugin is not None:
        return ResolvedModel(_with_params(plugin, model, options), plugin)
    raise ModelError(
        f"an object of type {type(model).__name__} is no model: an OnnxModel, the path of a model's file, a model of a framework that is "
        f"installed ({', '.join(e.name for e in plugins.exporters()) or 'none is'}) or a callable over numpy arrays was expected."
    )


def _find_plugin(model: Any, options: ModelOptions) -> Exporter | None:
    if options.framework == CallableExporter.name and callable(model):
        return CallableExporter()
    plugin = plugins.exporter_for(model, options.framework)
    if plugin is None and options.params is not None and callable(model):
        # The framework of a function that holds nothing is that of the parameters.
        plugin = plugins.exporter_for(functools.partial(model, options.params))
    return CallableExporter() if plugin is None and callable(model) else plugin


def _open_file(path: Path, options: ModelOptions, output: OutputOptions) -> ResolvedModel:
    if path.suffix == ".onnx":
        _refuse_params(path, options)
        return _resolve_onnx(load_onnx(path, output_name=output.output_name), output)
    plugin = plugins.exporter(options.framework) if options.framework else plugins.exporter_for_file(path)
    if plugin is None:
        exists = os.path.exists(path)  # also for names that are too long, or hold a NUL
        missing = "" if exists else ", and there is no such file"
        error = ModelError if exists else ModelNotFoundError
        raise error(
            f"opening the model {path}: known suffixes are .onnx, {', '.join(plugins.file_suffixes())}{missing}."
        )
    return ResolvedModel(
        _with_params(plugin, plugins.load_model_file(plugin, path, trust=options.trust), options), plugin
    )


def _resolve_onnx(model: LoadedOnnx | OnnxModel, output: OutputOptions) -> ResolvedModel:
    """Return an ONNX file as the model, if its output can be class scores or an ``output_transform`` makes them of it."""
    file = model.model if isinstance(model, LoadedOnnx) else model
    if file.spec.output_kind is None and output.output_transform is None:
        require_class_scores(file.spec, file.path)
    return ResolvedModel(model, None)


def _with_params(plugin: Exporter, model: Any, options: ModelOptions) -> Any:
    return model if options.params is None else plugins.bind_params(plugin, model, options.params)


def _refuse_params(path: Path, options: ModelOptions) -> None:
    if options.params is not None:
        raise OptionError(f"params= was given for {path}, an ONNX file, which has its own.")
