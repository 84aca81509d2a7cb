"""fo-onnx turns a trained classifier and a dataset into first-order data: a verified class distribution per sample.

The verbs are loaded when they are first used, since the rooms behind them take longer to load than numpy.
"""

from . import command_start as command_start  # first: it answers an interrupt of the imports below

# isort: split
from typing import TYPE_CHECKING, Any

from .distributions import Distributions
from .errors import (
    DataError,
    DeviceError,
    ExportError,
    FallbackWarning,
    FoOnnxError,
    ModelError,
    OptionError,
    OutputError,
    ParityError,
    PluginError,
    ResumeError,
    RunError,
    StoreError,
    TrustError,
)
from .model import OnnxModel
from .version import __version__

if TYPE_CHECKING:
    from .api import export, generate, verify
    from .engine import Engine
    from .parity import ParityReport
    from .sources import ImageFolder
    from .store import check, load, save

_ROOMS = {
    "api": ("export", "generate", "verify"),
    "engine": ("Engine",),
    "parity": ("ParityReport",),
    "sources": ("ImageFolder",),
    "store": ("check", "load", "save"),
}

__all__ = [
    "DataError",
    "DeviceError",
    "Distributions",
    "Engine",
    "ExportError",
    "FallbackWarning",
    "FoOnnxError",
    "ImageFolder",
    "ModelError",
    "OnnxModel",
    "OptionError",
    "OutputError",
    "ParityError",
    "ParityReport",
    "PluginError",
    "ResumeError",
    "RunError",
    "StoreError",
    "TrustError",
    "__version__",
    "check",
    "export",
    "generate",
    "load",
    "save",
    "verify",
]


def __getattr__(name: str) -> Any:
    """The public names whose rooms are loaded on first use (PEP 562)."""
    room = next((room for room, names in _ROOMS.items() if name in names), None)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f".{room}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
