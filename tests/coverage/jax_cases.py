"""87 JAX programs as classifiers: what people's models are made of. `CASES` has them by name.

Rows never depend on those beside them; where a program would naturally mix them, its comment says what was done.
"""

from __future__ import annotations

# The modules register their cases when they are imported.
import jax_array_cases
import jax_layer_cases
from jax_classifiers import CASES, CLASSES, Case, call

__all__ = ["CASES", "CLASSES", "Case", "call", "jax_array_cases", "jax_layer_cases"]
