"""Keeps onnxscript's optimizer, which torch's exporter runs, to simplifications that are exact.

In onnxscript 0.7 ``x + c`` is ``x`` if c is up to 1e-8, and ``x * c`` if c is within 1e-5 of 1: the default tolerances of a constant in
``onnxscript.rewriter._pattern_ir``. So the small number that keeps a norm above 0 is lost, and rows of zeros give NaN.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from onnxscript import rewriter

log = logging.getLogger("fo_onnx_torch")


@contextlib.contextmanager
def exact_rules() -> Iterator[None]:
    """Within, the optimizer does not take a number that is nearly 0 or 1 for 0 or 1; ONNX Runtime removes the exact ones."""
    try:
        from onnxscript.rewriter.rules.common import _no_op

        rules = rewriter._DEFAULT_REWRITE_RULES
    except (ImportError, AttributeError) as err:
        log.warning("onnxscript's optimizer is not kept to exact rules, since this version has others: %s", err)
        yield
        return
    inexact = list(_no_op.rules)
    rewriter._DEFAULT_REWRITE_RULES = tuple(rule for rule in rules if rule not in inexact)
    try:
        yield
    finally:
        rewriter._DEFAULT_REWRITE_RULES = rules
