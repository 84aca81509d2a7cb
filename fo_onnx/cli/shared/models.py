"""MODEL and PARAMS on the command line: ``package.module:attribute``, or a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ...control.announcing import announce
from ...errors import ModelError, ModelNotFoundError, OptionError, reading
from ...guards.array_files import read_npz
from ...guards.limits import check_regular, check_sparse
from ...models import plugins
from ...plugin_kit.calling import nest
from .references import MODEL, PARAMS, add_current_folder, is_reference, open_reference

_READING_PARAMS = "Reading the parameters"


def open_model(text: str, options: dict[str, Any]) -> Any:
    """Return the model that a command names; of its options the weights are taken out, and the parameters are loaded."""
    if is_reference(text):
        announce(f"importing {text}", options.get("progress"))
    model = load_model(text, weights=options.pop("weights"), framework=options["framework"], trust=options["trust"])
    options["params"] = load_params(options["params"])
    return model


def load_model(text: str, *, weights: Path | None = None, framework: str | None = None, trust: bool = False) -> Any:
    """Return what the verbs take as a model: a path, or the object that a reference names; filled with `weights`.

    Raises:
        ModelError: There is no such model, or the weights do not fit it.
        TrustError: The file is a pickle and `trust` is false; nothing of it has run.
    """
    if is_reference(text):
        model = open_reference(text, MODEL)
        return model if weights is None else _fill(model, weights, framework)
    path = Path(text)
    # A pickle names the modules of its classes, which are found where a reference would be.
    add_current_folder()
    if not os.path.exists(path):  # also for names that are too long
        known = ", ".join([".onnx", *plugins.file_suffixes()])
        raise ModelNotFoundError(
            f"opening the model {text}: there is no such file, and it is no package.module:attribute. Suffixes of model files "
            f"are {known}."
        )
    # The verbs open a file themselves; weights are filled into the model that it holds.
    if weights is None:
        return path
    if path.suffix == ".onnx":
        raise OptionError(f"weights={str(weights)!r} was given for {path}, an ONNX file, which has its own.")
    exporter = plugins.exporter(framework) if framework else plugins.exporter_for_file(path)
    if exporter is None:
        raise ModelError(
            f"opening the model {path}: no installed framework opens {path.suffix or 'such'} {'folders' if path.is_dir() else 'files'}."
        )
    return _fill(plugins.load_model_file(exporter, path, trust=trust), weights, framework)


def load_params(text: str | None) -> Any:
    """Return what the verbs take as ``params``: what a reference names, or the arrays of an ``.npz`` or safetensors file.

    Their names say where they belong: ``params.Dense_0.kernel``, or with slashes if no name has a dot.

    Raises:
        ModelError: There are none.
    """
    if text is None:
        return None
    if is_reference(text):
        return open_reference(text, PARAMS)
    path = Path(text)
    if not os.path.exists(path):
        raise ModelNotFoundError(
            f"opening the parameters {text}: there is no such file, and it is no package.module:attribute."
        )
    with reading(path, ModelError, _READING_PARAMS):
        check_regular(path, ModelError, _READING_PARAMS)
        check_sparse(path, ModelError)
        arrays = _read_arrays(path)
        # Names become paths of dicts, below a common one, so that numbers are positions in the outermost structure too.
        if not any("." in name for name in arrays):
            arrays = {name.replace("/", "."): array for name, array in arrays.items()}
        return nest({f"params.{name}": array for name, array in arrays.items()}).get("params", ())


def _fill(model: Any, weights: Path, framework: str | None) -> Any:
    exporter = plugins.exporter_for(model, framework)
    if exporter is None:
        raise ModelError(
            f"weights={str(weights)!r} was given, but a {type(model).__name__} of no framework that is installed has none "
            "that could be filled."
        )
    plugins.load_weights(exporter, model, weights)
    return model


def _read_arrays(path: Path) -> dict[str, Any]:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return read_npz(path, ModelError, _READING_PARAMS)
    if suffix == ".safetensors":
        from safetensors.numpy import load_file

        return dict(load_file(os.fspath(path)))
    raise ModelError(f"opening the parameters {path}: .npz, .safetensors or package.module:attribute was expected.")
