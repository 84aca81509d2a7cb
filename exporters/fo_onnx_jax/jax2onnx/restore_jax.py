"""JAX, flax and equinox put back as they were after a conversion, where jax2onnx leaves them changed.

jax2onnx traces models with functions of JAX, flax and equinox replaced by its own. Most come back when it is done. Of those
that do not, found by comparing the packages before and after a conversion with jax2onnx 0.17.1:

- ``jax.numpy.cumsum``, replaced when ``jax2onnx/plugins/jax/numpy/cumsum.py`` is imported: it takes no axis by position.
- ``flax.linen.MultiHeadAttention.__call__``: the class inherits it, jax2onnx reads it through the parent that it has replaced
  by then, and writes that back. So with ``flax.linen.Conv`` and ``ConvLocal``, where it is the parent's original.
- JAX's own caches: a jitted function that was traced meanwhile keeps jax2onnx's primitives, and if it is called with the
  same shapes again JAX finds no translation rule for them.
- ``jax_enable_x64``, if it was set within a context (``jax.enable_x64(True)``): jax2onnx reads it there and writes it back
  for the whole process.
- A handler on the root logger, from ``logging.info`` in ``jax2onnx.to_onnx``.

New names like ``jax.numpy.cumsum_p`` hide nothing and stay.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from fo_onnx.plugin_kit.quiet import quiet

_PACKAGES = ("jax", "flax", "equinox", "dm_pix")
_PATCHED = (
    "jax.image", "jax.nn", "jax.nn.initializers", "jax.numpy", "jax.numpy.linalg", "jax.random", "jax.scipy.special",
    "flax.linen", "flax.nnx", "equinox", "dm_pix",
)  # fmt: skip
"""The modules that jax2onnx 0.17 patches, and therefore requires to be installed."""
_ABSENT = object()

_one_at_a_time = threading.RLock()
"""Patches belong to the process: a second conversion would take the first one's for the originals."""


@contextlib.contextmanager
def restore_jax() -> Iterator[None]:
    """Put functions and methods of JAX, flax and equinox back as they were when the context ends, also after an error.

    Types of 64 bits are disabled meanwhile, in this thread. What it traces has a place of its own in JAX's caches, so that
    jitted functions are traced anew afterwards. Another thread that traces a model meanwhile gets jax2onnx's functions.
    """
    import jax

    enable_x64: Any = vars(jax)["enable_x64"]
    with _one_at_a_time:
        for name in _PATCHED:
            # Before the snapshot: a module that is first imported in a conversion would be taken for new, and stay patched.
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)
        originals = [(owner, dict(vars(owner))) for owner in _owners()]
        try:
            with trace_apart("jax2onnx"), enable_x64(False):
                yield
        finally:
            for owner, before in originals:
                _restore(owner, before)


def trace_apart(purpose: str) -> contextlib.AbstractContextManager[None]:
    """Return a context in which JAX finds in its caches only what was traced for `purpose`; in this thread alone."""
    context: contextlib.AbstractContextManager[None] = _trace_caches()(purpose)
    return context


@functools.cache
def _trace_caches() -> Any:
    """Return a part of the keys of JAX's caches of traces; one for the process, since each has its own. For jax >= 0.8."""
    import jax

    make: Any = vars(jax)["make_user_context"]
    return make(None)


@contextlib.contextmanager
def silence_jax2onnx() -> Iterator[None]:
    """Keep what jax2onnx prints, logs and warns of off the user's terminal; it logs to the root, too."""
    with quiet("jax2onnx", "onnx_ir", level=logging.CRITICAL):
        logging.root.addFilter(_not_from_jax2onnx)
        try:
            yield
        finally:
            logging.root.removeFilter(_not_from_jax2onnx)


def _not_from_jax2onnx(record: logging.LogRecord) -> bool:
    return "jax2onnx" not in Path(record.pathname).parts


def _owners() -> list[Any]:
    """Return the public modules of the packages that are loaded, and the classes in them."""
    modules = [m for name, m in list(sys.modules.items()) if isinstance(m, ModuleType) and _is_public(name)]
    classes = {
        id(v): v
        for m in modules
        for v in list(vars(m).values())
        if isinstance(v, type) and v.__module__.partition(".")[0] in _PACKAGES
    }
    return [*modules, *classes.values()]


def _is_public(module: str) -> bool:
    package, *rest = module.split(".")
    return package in _PACKAGES and not any(part.startswith("_") for part in rest)


def _restore(owner: Any, before: dict[str, Any]) -> None:
    """Put back functions that were replaced, and remove methods that now hide inherited ones."""
    for name, now in list(vars(owner).items()):
        original = before.get(name, _ABSENT)
        if original is now:
            continue
        if original is not _ABSENT:
            if _is_function(original):
                setattr(owner, name, original)
        elif isinstance(owner, type) and _is_function(now) and any(name in vars(base) for base in owner.__mro__[1:]):
            delattr(owner, name)
    # Functions that were taken away.
    for name in before.keys() - vars(owner).keys():
        if _is_function(before[name]):
            setattr(owner, name, before[name])


def _is_function(value: Any) -> bool:
    return callable(value) or isinstance(value, classmethod | staticmethod)
