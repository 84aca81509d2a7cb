"""The packages that the extra ``keras`` brings, where they are needed for what somebody asked for."""

from __future__ import annotations

import importlib

from fo_onnx_tfgraph.quiet import quiet

from fo_onnx.errors import PluginError


def require(package: str, doing: str) -> None:
    """Imports a package, without the lines that TensorFlow writes to standard error when it is imported first.

    No setting keeps them away: they come before its log is set up ("before absl::InitializeLog() is called", TensorFlow 2.21).

    Args:
        package: Its name.
        doing: What needs it, for the message.

    Raises:
        PluginError: It is not installed, or cannot be imported.
    """
    try:
        with quiet():
            importlib.import_module(package)
    except ImportError as err:
        raise PluginError(f"{doing} needs {package} ({err}): pip install 'fo-onnx[keras]'.") from err
