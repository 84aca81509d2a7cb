"""torch models and weights in files. A pickle runs code when it is read, so it needs the user's word."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from fo_onnx import digests
from fo_onnx.errors import ModelError, ModelNotFoundError, PluginError, TrustError

from .modules import FunctionModule, as_module
from .signatures import unwrapped
from .tensors import to_numpy

STATE_KEYS = ("state_dict", "model_state_dict")
"""Under which training scripts keep the weights within a checkpoint."""
_NO_MODULE = (
    "{path} holds weights, not a module: give the module as package.module:attribute and the file with --weights."
)


def load(path: Path, *, trust: bool) -> Any:
    """The module in a pickled file (``torch.save(module)``) or a TorchScript archive.

    Raises:
        TrustError: `trust` is false; nothing of the file has run.
        ModelError: It holds weights only, or no module.
    """
    _require(path)
    if not trust:
        if _is_state(path):
            raise ModelError(_NO_MODULE.format(path=path))
        raise TrustError(
            f"{path} is a pickled module, and reading it runs whatever code it holds. If you trust where it came from, say "
            "trust=True (--trust-pickle on the command line). Safer: save the state dict, and give the module as "
            "package.module:attribute with --weights."
        )
    try:
        with warnings.catch_warnings():
            # torch says with each call that TorchScript is deprecated; the file is one all the same.
            warnings.simplefilter("ignore", DeprecationWarning)
            if _is_script(path):
                return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            found = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as err:
        raise ModelError(f"reading the module in {path} failed: {type(err).__name__}: {err}") from err
    if isinstance(found, Mapping):
        raise ModelError(_NO_MODULE.format(path=path))
    if not isinstance(found, torch.nn.Module):
        raise ModelError(
            f"{path} holds a {type(found).__name__}, no module; what torch.save(module, …) wrote was expected."
        )
    return found


def load_weights(model: Any, path: Path) -> None:
    """Fills `model` with the weights in a safetensors file or a state dict, without running code.

    Raises:
        ModelError: The file holds no weights, or others than the model has.
    """
    _require(path)
    state = _safetensors(path) if path.suffix == ".safetensors" else _state_dict(path)
    try:
        as_module(model).load_state_dict(state)
    except RuntimeError as err:
        raise ModelError(f"the weights in {path} do not fit the model: {' '.join(str(err).split())}") from err


def fingerprint(model: Any) -> str:
    """A digest of a module's structure, of every weight, and of what else its parts hold; of a function also its code."""
    module = as_module(model)
    digest = hashlib.sha256()
    if isinstance(module, FunctionModule):
        for part in digests.of_object(unwrapped(module.function), _leaf):
            digest.update(part)
        module = module.held
    digest.update(str(module).encode())
    for part in digests.of_object(module, _leaf):
        digest.update(part)
    return digest.hexdigest()


def _leaf(value: Any, walk: digests.Walk) -> Iterator[bytes] | None:
    """What is told of torch's own objects."""
    if isinstance(value, torch.Tensor):
        return _of_tensor(value)
    if isinstance(value, torch.nn.Module):
        return _of_module(value, walk)
    if isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
        return iter([repr(value).encode()])
    return iter([]) if isinstance(value, torch.Generator) else None


def _of_tensor(tensor: torch.Tensor) -> Iterator[bytes]:
    yield f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    yield to_numpy(tensor.dequantize() if tensor.is_quantized else tensor).tobytes()


def _of_module(module: torch.nn.Module, walk: digests.Walk) -> Iterator[bytes]:
    """A module's class, weights, parts and attributes, without torch's own bookkeeping and without its mode."""
    if isinstance(module, torch.jit.ScriptModule):
        yield str(getattr(module, "graph", "")).encode()
        yield from walk(dict(module.state_dict()))
        return
    yield from walk(type(module))
    yield from walk({k: dict(getattr(module, k)) for k in ("_parameters", "_buffers", "_modules")})
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        # Their keys are numbers that count up in a process.
        yield from walk(list(hooks.values()))
    yield from walk({k: v for k, v in sorted(vars(module).items()) if k not in _BOOKKEEPING})
    if not module._modules:
        # A quantised layer's weights are in a C object of a part without parts, and as a tuple in its state.
        yield from walk([v for v in module.state_dict().values() if isinstance(v, tuple)])


_BOOKKEEPING = frozenset(vars(torch.nn.Module()))
"""What every module has, the mode among it."""


def _require(path: Path) -> None:
    if not path.is_file():
        raise ModelNotFoundError(f"opening {path}: there is no such file.")


def _is_script(path: Path) -> bool:
    import zipfile

    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(n.endswith("/constants.pkl") for n in archive.namelist())


def _is_state(path: Path) -> bool:
    try:
        _state_dict(path)
    except ModelError:
        return False
    return True


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
    if _is_script(path):
        raise ModelError(f"{path} is a TorchScript archive, a module with code, and no plain weights.")
    try:
        with warnings.catch_warnings():
            # torch remarks on unusual pickle protocols before it refuses the file, or reads it.
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as err:
        reason = (str(err).splitlines() or [type(err).__name__])[0]
        raise ModelError(
            f"{path} holds no plain weights ({reason}). Save them with torch.save(module.state_dict(), …) or as safetensors."
        ) from err
    for key in STATE_KEYS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise ModelError(f"{path} holds a {type(found).__name__} that is no state dict (tensors by name).")
    return found
