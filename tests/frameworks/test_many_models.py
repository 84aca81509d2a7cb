"""A process that goes through many models keeps nothing of those that are gone."""

from __future__ import annotations

import sys

import many_models
import pytest
from fresh_python import run_python

PACKAGES = {"flax": "flax", "tensorflow": "tensorflow", "callable": "numpy"}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ["torch", "keras", "tensorflow", "jax", "flax", "sklearn", "callable"])
def test_of_many_models_nothing_is_kept(kind):
    pytest.importorskip(PACKAGES.get(kind, kind))
    alive, growth = run_python(f"import many_models; many_models.main({kind!r})", timeout_s=390).split()
    assert int(alive) == 0
    assert float(growth) < 2, f"{growth} models' weights of {many_models.COUNTED}"
