"""MODEL on the command line: ``package.module:attribute``, or a file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from .. import plugins
from ..errors import ModelError, ModelNotFoundError, OptionError
from ..options import ModelOptions, OutputOptions
from .objects import MODEL, imported, is_reference, made
from .params import load_params


def load_model(
    text: str,
    *,
    weights: Path | None = None,
    params: str | None = None,
    framework: str | None = None,
    trust: bool = False,
) -> Any:
    """What the verbs take as a model.

    Args:
        text: An ``.onnx`` file, a model file or folder of a framework, or ``package.module:attribute``: an instance, a class or a
            function without required parameters (called to make the model), or a function over arrays.
        weights: A file of weights that are filled in.
        params: Parameters that go with a model that does not hold them; see `load_params`.
        framework: The framework's name where it shall not be told from the model.
        trust: Whether a model file may run code when it is read.

    Raises:
        ModelError: There is no such model, or the weights do not fit it.
        TrustError: The file is a pickle and `trust` is false; nothing of it has run.
    """
    if params is not None:
        from ..engine.resolve import resolve

        model = load_model(text, weights=weights, framework=framework, trust=trust)
        options = ModelOptions(framework=framework, params=load_params(params), trust=trust)
        return resolve(model, options, OutputOptions())[0]
    if is_reference(text):
        model = made(imported(text, MODEL), text, MODEL)
        return model if weights is None else _filled(model, weights, framework)
    path = Path(text)
    # A pickle names the modules of its classes, which are found where a reference would be.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if not os.path.exists(path):  # also for names that are too long
        known = ", ".join([".onnx", *sorted({s for e in plugins.exporters() for s in e.suffixes})])
        raise ModelNotFoundError(
            f"opening the model {text}: there is no such file, and it is no package.module:attribute. Suffixes of model files "
            f"are {known}."
        )
    if weights is None:
        return path
    if path.suffix == ".onnx":
        raise OptionError(f"weights={str(weights)!r} was given for {path}, an ONNX file, which has its own.")
    exporter = plugins.exporter(framework) if framework else plugins.exporter_for_file(path)
    if exporter is None:
        raise ModelError(
            f"opening the model {path}: no installed framework opens {path.suffix or 'such'} {'folders' if path.is_dir() else 'files'}."
        )
    return _filled(exporter.load(path, trust=trust), weights, framework)


def _filled(model: Any, weights: Path, framework: str | None) -> Any:
    exporter = plugins.exporter_for(model, framework)
    if exporter is None:
        raise ModelError(
            f"weights={str(weights)!r} was given, but a {type(model).__name__} of no framework that is installed has none "
            "that could be filled."
        )
    exporter.load_weights(model, weights)
    return model
