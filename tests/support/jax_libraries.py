"""JAX's libraries of modules, imported where their remarks on JAX are no errors."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # equinox 0.13.0 names what jax 0.7.1 says is deprecated (batching.NotMapped), when it is imported.
    warnings.filterwarnings("ignore", "jax.interpreters.batching.NotMapped is deprecated", DeprecationWarning)
    import equinox
    import flax.linen
    import haiku
    from flax import nnx
    from flax.training import train_state

linen = flax.linen

__all__ = ["equinox", "haiku", "linen", "nnx", "train_state"]
