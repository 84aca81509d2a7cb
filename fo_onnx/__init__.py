"""fo-onnx turns a trained classifier and a dataset into first-order data: one verified class distribution per sample."""

from .api import export, generate, verify
from .distributions import Distributions
from .engine import Engine
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
from .parity import ParityReport
from .sources import ImageFolder
from .store import check, load, save
from .version import __version__

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
