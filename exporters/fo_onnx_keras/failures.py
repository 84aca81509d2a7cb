"""What Keras and TensorFlow raise, in one line."""

from __future__ import annotations

import re

_STYLES = re.compile(r"\x1b\[[0-9;]*m")
_TAIL = re.compile(r"\n\s*(?:Arguments received by |\[Op:|\[\[\{\{node|Stack trace for op definition)")
_HEAD = re.compile(r"Exception encountered when calling [^\n]*\n+")
_USER_CODE = re.compile(r"^in user code:\n.*?\n\s*(?=\w+(?:Error|Exception)?: )", re.DOTALL)
_NODE = re.compile(r"\s*\{\{(?:function_node|node) [^}]*\}\}")
LONGEST = 400
"""Characters of a message that are kept; Keras and TensorFlow append whole configurations and graphs."""


def first_cause(err: BaseException) -> str:
    """The type and the message of what failed, without the styles, frames and arguments that Keras and TensorFlow add."""
    return f"{type(err).__name__}: {in_one_line(str(err)) or 'no message'}"


def in_one_line(text: str) -> str:
    """A message without those, and without a full stop at its end."""
    text = _TAIL.split(_HEAD.sub("", _USER_CODE.sub("", _STYLES.sub("", text))))[0]
    text = " ".join(_NODE.sub("", text).split()).rstrip(".")
    return f"{text[:LONGEST].rsplit(' ', 1)[0]} …" if len(text) > LONGEST else text
