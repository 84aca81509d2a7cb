"""The place where jax2tf's rules for primitives are replaced, for the time of a conversion.

jax2tf keeps its rules for graphs without XLA in one dictionary, asked before all others, by primitive
(``jax/experimental/jax2tf/jax2tf.py``, ``TensorFlowTrace.get_primitive_impl``). The rules that replace them are in ``rules/``.
They are written for jax 0.7.1; jax2tf's were the same in 0.6.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

from fo_onnx.errors import PluginError

WRITTEN_FOR = "0.7.1"
_USED_NAMES = ("tf_impl_no_xla", "tf_impl", "_eval_shape")
_one_at_a_time = threading.RLock()

Rules = dict[Any, Callable[..., Any]]


@contextlib.contextmanager
def patch_jax2tf() -> Iterator[None]:
    """Replace jax2tf's rules until the context ends, then put back what was there, also after an error.

    Raises:
        PluginError: jax2tf keeps its rules in another way than that of jax 0.7.1.
    """
    with _one_at_a_time:
        current = _rules_of_jax2tf()
        before = dict(current)
        current.update(_replacements(before))
        try:
            yield
        finally:
            current.clear()
            current.update(before)


def _replacements(originals: Rules) -> Rules:
    # Here, since the rules need TensorFlow.
    from .rules import convolutions, indexing, numbers, windows

    return {
        **convolutions.RULES,
        **windows.RULES,
        **indexing.make_rules(originals),
        **numbers.make_rules(originals),
    }


def _rules_of_jax2tf() -> Rules:
    from jax.experimental.jax2tf import jax2tf

    missing = [name for name in _USED_NAMES if not hasattr(jax2tf, name)]
    rules = getattr(jax2tf, "tf_impl_no_xla", None)
    if missing or not isinstance(rules, dict) or jax.lax.conv_general_dilated_p not in rules:
        raise PluginError(
            f"fo-onnx replaces rules of jax2tf as jax {WRITTEN_FOR} has them, and jax {jax.__version__} is installed, which "
            f"keeps them in another way{f' (no {missing[0]})' if missing else ''}; pip install 'fo-onnx[jax]'."
        )
    return rules
