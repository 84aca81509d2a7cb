"""Messages in one line: what Keras and TensorFlow raise, and which package is missing for what was asked for."""

from __future__ import annotations

import importlib
import re

from fo_onnx_tensorflow.quiet import quiet

from fo_onnx.errors import PluginError

_STYLES = re.compile(r"\x1b\[[0-9;]*m")
_TAIL = re.compile(r"\n\s*(?:Arguments received by |\[Op:|\[\[\{\{node|Stack trace for op definition)")
_HEAD = re.compile(r"Exception encountered when calling [^\n]*\n+")
_USER_CODE = re.compile(r"^in user code:\n.*?\n\s*(?=\w+(?:Error|Exception)?: )", re.DOTALL)
_NODE = re.compile(r"\s*\{\{(?:function_node|node) [^}]*\}\}")
LONGEST = 400
"""Characters of a message that are passed on; Keras and TensorFlow append whole configurations and graphs."""


def first_cause(err: BaseException) -> str:
    """Return type and message of an error, without the styles, frames and arguments that Keras and TensorFlow add."""
    return f"{type(err).__name__}: {in_one_line(str(err)) or 'no message'}"


def in_one_line(text: str) -> str:
    """Return a message without those, and without a full stop at its end."""
    text = _TAIL.split(_HEAD.sub("", _USER_CODE.sub("", _STYLES.sub("", text))))[0]
    text = " ".join(_NODE.sub("", text).split()).rstrip(".")
    return f"{text[:LONGEST].rsplit(' ', 1)[0]} …" if len(text) > LONGEST else text


def require(package: str, doing: str) -> None:
    """Import a package, without the lines that TensorFlow writes to standard error when it is imported first.

    No setting keeps them away: they come before its log is set up ("before absl::InitializeLog() is called", TensorFlow
    2.21).

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
