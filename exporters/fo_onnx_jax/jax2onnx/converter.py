"""jax2onnx without what it does to JAX.

To trace a model jax2onnx 0.17.1 replaces functions of JAX, flax and equinox by its own for the whole process, and does not put all of
them back; functions that are jitted keep its primitives in JAX's caches. A jaxpr that is traced without the replacements is converted
as well: 77 of the 87 programs of docs/coverage.md are, and 71 with them. So they are left out. What else it changes is put back:

- ``jax.numpy.cumsum``, replaced when ``jax2onnx/plugins/jax/numpy/cumsum.py`` is imported: it takes no axis by position.
- ``jax_enable_x64``, if it was set within a context (``jax.enable_x64(True)``): jax2onnx reads it there and writes it back
  for the whole process.
- A handler on the root logger, from ``logging.info`` in ``jax2onnx.to_onnx``.

New names like ``jax.numpy.cumsum_p`` hide nothing and stay.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from fo_onnx.errors import PluginError, first_line, root_cause
from fo_onnx.plugin_kit.quiet import quiet

_INSTALL = "pip install 'fo-onnx[jax2onnx]'"

_one_at_a_time = threading.RLock()
"""The replacements are left out for the whole process: a second conversion would take the first one's state for the original."""


@contextlib.contextmanager
def open_jax2onnx() -> Iterator[Any]:
    """Yield the module jax2onnx, to trace models with 64-bit types disabled and nothing of JAX replaced, in silence.

    Raises:
        PluginError: jax2onnx is missing, or cannot be imported.
    """
    try:
        version("jax2onnx")
    except PackageNotFoundError as err:
        raise PluginError(
            f"jax {version('jax')} is installed, whose models are converted to ONNX by jax2onnx, and jax2onnx is not: {_INSTALL}"
        ) from err
    enable_x64: Any = vars(jax)["enable_x64"]  # of jax >= 0.8
    with _one_at_a_time, silence_jax2onnx(), enable_x64(False):
        jax2onnx = _import_jax2onnx()
        converter = jax2onnx.converter.conversion_api
        replace_functions = converter._activate_plugin_worlds
        converter._activate_plugin_worlds = contextlib.nullcontext
        try:
            yield jax2onnx
        finally:
            converter._activate_plugin_worlds = replace_functions


def _import_jax2onnx() -> Any:
    """Return the module with all its rules for primitives loaded."""
    cumsum = jax.numpy.cumsum
    try:
        import jax2onnx
        from jax2onnx.converter import conversion_api

        conversion_api.import_all_plugins()
    except Exception as err:
        # It reads internals of jax, flax and equinox when it is imported; versions that do not fit fail in any way.
        raise PluginError(
            f"jax2onnx {version('jax2onnx')} cannot be imported beside jax {version('jax')}: {first_line(root_cause(err))}. "
            f"Versions that fit each other are expected: {_INSTALL}"
        ) from err
    finally:
        jax.numpy.cumsum = cumsum
    return jax2onnx


@contextlib.contextmanager
def silence_jax2onnx() -> Iterator[None]:
    """Keep what jax2onnx prints, logs and warns of off the user's terminal; it logs to the root, too."""
    with quiet("jax2onnx", "onnx_ir", level=logging.CRITICAL):
        logging.root.addFilter(_is_of_another_package)
        try:
            yield
        finally:
            logging.root.removeFilter(_is_of_another_package)


def _is_of_another_package(record: logging.LogRecord) -> bool:
    return "jax2onnx" not in Path(record.pathname).parts
