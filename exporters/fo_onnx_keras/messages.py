"""Messages in one line: what Keras and TensorFlow raise, and which package is missing for what was asked for."""

from __future__ import annotations

import importlib
import re
import textwrap

from fo_onnx_tensorflow.quiet import quiet

from fo_onnx.errors import LONGEST_LINE, PluginError

_STYLES = re.compile(r"\x1b\[[0-9;]*m")
_TAIL = re.compile(r"\n\s*(?:Arguments received by |\[Op:|\[\[\{\{node|Stack trace for op definition)")
_HEAD = re.compile(r"Exception encountered when calling [^\n]*\n+")
_CONFIG = re.compile(r"(?:\s+using config=|\. Please ensure that).*\n+Exception encountered: ", re.DOTALL)
"""What Keras puts between the class that it could not read from a file and the cause."""
_USER_CODE = re.compile(r"^in user code:\n.*?\n\s*(?=\w+(?:Error|Exception)?: )", re.DOTALL)
_NODE = re.compile(r"\s*\{\{(?:function_node|node) [^}]*\}\}")


def first_cause(err: BaseException) -> str:
    """Return type and message of an error, without the styles, frames and arguments that Keras and TensorFlow add."""
    return f"{type(err).__name__}: {in_one_line(str(err)) or 'no message'}"


def in_one_line(text: str) -> str:
    """Return a message without those, without a full stop at its end, and without the end of a long one."""
    text = _CONFIG.sub(": ", _HEAD.sub("", _USER_CODE.sub("", _STYLES.sub("", text))))
    text = _TAIL.split(text)[0]
    return textwrap.shorten(_NODE.sub("", text), LONGEST_LINE, placeholder=" …").rstrip(".")


def require(package: str, doing: str) -> None:
    """Import a package, or raise a `PluginError` that says what needs it: `doing`.

    The lines that TensorFlow writes to standard error meanwhile are kept off. No setting does that: they come before its
    log is set up ("before absl::InitializeLog() is called", TensorFlow 2.21).
    """
    try:
        with quiet():
            importlib.import_module(package)
    except ImportError as err:
        raise PluginError(f"{doing} needs {package} ({err}): pip install 'fo-onnx[keras]'.") from err
