"""torch models and weights in files. A pickle runs code when it is read, so it needs the user's word."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fo_onnx.errors import ModelError, ModelNotFoundError, PluginError, TrustError, first_line

from .modules import as_module

STATE_KEYS = ("state_dict", "model_state_dict")
"""Keys under which training scripts put the weights in a checkpoint."""
SCRIPT_ENTRY, PACKAGE_ENTRY, PROGRAM_ENTRY = "/constants.pkl", "/archive_format", "/models/model.json"
"""Entries of the archives that torch.jit.save writes, that all ``.pt2`` packages have, and that torch.export.save adds."""
_NO_MODULE = (
    "{path} holds weights, not a module: give the module as package.module:attribute and the file with --weights."
)


def load(path: Path, *, trust: bool) -> Any:
    """Return the module in a pickled file (``torch.save(module)``), a TorchScript archive or an exported program's.

    Raises:
        TrustError: `trust` is false; nothing of the file has run.
        ModelError: It holds weights only, or no module.
    """
    _require_file(path)
    if not trust:
        try:
            _state_dict(path)
        except ModelError:
            raise TrustError(
                f"{path} is a pickled module, and reading it runs whatever code it holds. If you trust where it came from, say "
                "trust=True (--trust-pickle on the command line). Safer: save the state dict, and give the module as "
                "package.module:attribute with --weights."
            ) from None
        raise ModelError(_NO_MODULE.format(path=path))
    if _is_archive_with(path, PACKAGE_ENTRY) and not _is_archive_with(path, PROGRAM_ENTRY):
        raise ModelError(
            f"{path} is a package of torch without a program in it, such as code that AOTInductor has compiled. What "
            "torch.export.save(program, …) wrote was expected."
        )
    try:
        with warnings.catch_warnings():
            # torch says with each call that TorchScript is deprecated; the file is one all the same.
            warnings.simplefilter("ignore", DeprecationWarning)
            if _is_archive_with(path, SCRIPT_ENTRY):
                return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            if _is_archive_with(path, PROGRAM_ENTRY):
                return torch.export.load(path)
            module = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as err:
        raise ModelError(f"reading the module in {path} failed: {type(err).__name__}: {err}") from err
    if isinstance(module, Mapping):
        raise ModelError(_NO_MODULE.format(path=path))
    if not isinstance(module, torch.nn.Module | torch.export.ExportedProgram):
        raise ModelError(
            f"{path} holds a {type(module).__name__}, no module; what torch.save(module, …) wrote was expected."
        )
    return module


def load_weights(model: Any, path: Path) -> None:
    """Fill `model` with the weights in a safetensors file or a state dict, without running code.

    Raises:
        ModelError: The file holds no weights, or others than the model has.
    """
    _require_file(path)
    state = _safetensors(path) if path.suffix == ".safetensors" else _state_dict(path)
    try:
        as_module(model).load_state_dict(state)
    except RuntimeError as err:
        raise ModelError(f"the weights in {path} do not fit the model: {' '.join(str(err).split())}") from err


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ModelNotFoundError(f"opening {path}: there is no such file.")


def _is_archive_with(path: Path, entry: str) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(n.endswith(entry) for n in archive.namelist())


def _safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as err:
        raise PluginError(f"reading {path} needs safetensors: pip install 'fo-onnx[torch]'.") from err
    try:
        return load_file(path)
    except SafetensorError as err:
        raise ModelError(f"{path} is no safetensors file, or is truncated: {err}") from err


def _state_dict(path: Path) -> Mapping[str, Any]:
    for entry, what in ((SCRIPT_ENTRY, "a TorchScript archive"), (PROGRAM_ENTRY, "a program of torch.export")):
        if _is_archive_with(path, entry):
            raise ModelError(f"{path} is {what}, a module with code, and no plain weights.")
    try:
        with warnings.catch_warnings():
            # torch remarks on unusual pickle protocols before it refuses the file, or reads it.
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as err:
        reason = first_line(err, with_kind=False)
        raise ModelError(
            f"{path} holds no plain weights ({reason}). Save them with torch.save(module.state_dict(), …) or as safetensors."
        ) from err
    for key in STATE_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(f"{path} holds a {type(state).__name__} that is no state dict (tensors by name).")
    return state
