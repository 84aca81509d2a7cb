"""fo-onnx turns a trained classifier and a dataset into first-order data: a verified class distribution per sample.

All but the errors are loaded when they are first used: the command can answer an interrupt before anything that takes long is
imported, and the rooms behind the verbs take longer to load than numpy.
"""

from typing import TYPE_CHECKING, Any

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
from .version import __version__

if TYPE_CHECKING:
    from .api import export, generate, verify
    from .contracts.parity_report import ParityReport
    from .distributions import Distributions
    from .engine import Engine
    from .models.onnx_model import OnnxModel
    from .sources import ImageFolder
    from .store import check, load, save

_ROOMS = {
    "api": ("export", "generate", "verify"),
    "distributions": ("Distributions",),
    "engine": ("Engine",),
    "models.onnx_model": ("OnnxModel",),
    "contracts.parity_report": ("ParityReport",),
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
