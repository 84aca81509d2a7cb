"""The place where jax2tf's rules for primitives are replaced, for the time of a conversion.

jax2tf keeps its rules for graphs without XLA in one dictionary, asked before all others, by primitive
(``jax/experimental/jax2tf/jax2tf.py``, ``TensorFlowTrace.get_primitive_impl``). The rules that replace them are in ``rules/``.
They are written for jax 0.7.1; jax2tf's were the same in 0.6.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import jax

from fo_onnx.errors import PluginError

WRITTEN_FOR = "0.7.1"
_USED_NAMES = ("tf_impl_no_xla", "tf_impl_with_avals", "tf_impl", "_eval_shape")
_one_at_a_time = threading.RLock()


@contextlib.contextmanager
def patch_jax2tf() -> Iterator[None]:
    """Replace jax2tf's rules until the context ends, then put back what was there, also after an error.

    Raises:
        PluginError: jax2tf keeps its rules in another way than that of jax 0.7.1.
    """
    from jax.experimental.jax2tf import jax2tf

    # Here, since the rules need TensorFlow.
    from .rules import convolutions, indexing, numbers, windows

    missing = [name for name in _USED_NAMES if not hasattr(jax2tf, name)]
    if missing:
        raise PluginError(
            f"fo-onnx replaces rules of jax2tf as jax {WRITTEN_FOR} has them, and jax {jax.__version__} is installed, which "
            f"keeps them in another way (no {missing[0]}); pip install 'fo-onnx[jax]'."
        )
    with _one_at_a_time:
        rules: dict[Any, Any] = jax2tf.tf_impl_no_xla
        before = dict(rules)
        rules |= convolutions.RULES | windows.RULES | indexing.make_rules(before) | numbers.make_rules(before)
        try:
            yield
        finally:
            rules.clear()
            rules.update(before)
