"""A patch inside of Keras for the time of a conversion, put back also on an error."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .detect import keras_module

_patching = threading.RLock()
"""A module belongs to all threads."""
_CONVOLUTIONS = "keras.src.backend.tensorflow.nn"
_CHECKED = ("3.14", "3.15")
"""Minor versions of Keras in which `_CONVOLUTIONS` was read."""


class _WithoutCompilation:
    """The ``tf`` of a module, whose ``tf.function`` leaves functions as they are."""

    def __init__(self, tensorflow: Any) -> None:
        self._tensorflow = tensorflow

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensorflow, name)

    def function(self, *_: Any, **__: Any) -> Callable[[Any], Any]:
        """Return a decorator that changes nothing."""
        return lambda function: function


@contextlib.contextmanager
def patch_convolutions() -> Iterator[None]:
    """Let Keras write grouped convolutions into the graph as convolutions.

    ``keras.src.backend.tensorflow.nn.conv`` puts a grouped convolution (and a 3-D one with channels first) into a
    ``tf.function(jit_compile=True)``, since TensorFlow's CPU kernel lacks it (Keras 3.14 and 3.15; "grouped
    convolutions are broken on CPU without XLA", says the source). tf2onnx cannot see into a function that is to be
    compiled; ONNX has grouped convolutions. ConvNeXt is made of them.
    """
    keras = keras_module()
    if keras is None:
        yield
        return
    with _patching:
        module = importlib.import_module(_CONVOLUTIONS)
        if not _compiles(module):
            warnings.warn(
                f"Keras {keras.__version__} differs from the versions whose convolutions are patched for the export "
                f"({', '.join(_CHECKED)}): {_CONVOLUTIONS}.conv compiles in another way, or not at all. Models with grouped "
                "convolutions may not become ONNX.",
                stacklevel=3,
            )
            yield
            return
        # The name `tf` of the one module, not TensorFlow itself.
        before = module.tf
        try:
            vars(module)["tf"] = _WithoutCompilation(before)
            yield
        finally:
            vars(module)["tf"] = before


def _compiles(module: Any) -> bool:
    """Return whether the convolution of this version of Keras is written in the way that is patched."""
    try:
        return hasattr(module, "tf") and "tf.function(jit_compile=True)" in inspect.getsource(module.conv)
    except (AttributeError, TypeError, OSError):
        return False
