"""JAX programs of any output made classifiers, so that what they give can be compared as distributions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CLASSES = 5
_CALIBRATION_ROWS = 64
_GAIN = 3.0

Arrays = tuple[np.ndarray, ...] | dict[str, np.ndarray]
Made = tuple[Callable[..., Any], Callable[[int], Arrays]]


@dataclass(frozen=True)
class Case:
    """A program as a classifier.

    Attributes:
        name: What is special about it.
        make: Gives the function, and what makes a number of rows for it: a tuple of arrays to be called as
            ``function(*rows)``, or a dict to be called as ``function(rows)``. The first rows of a longer batch are those of
            a shorter one.
        tolerance: The largest total variation between its distributions in JAX and in ONNX.
    """

    name: str
    make: Callable[[], Made]
    tolerance: float = 1e-5


CASES: dict[str, Case] = {}


def case(name: str, *, tolerance: float = 1e-5) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Registers what makes a program and its rows; the readout is added here."""

    def register(make: Callable[[], Made]) -> Callable[[], Made]:
        def classifier() -> Made:
            program, rows = make()
            return _with_readout(program, rows), rows

        assert name not in CASES
        CASES[name] = Case(name, classifier, tolerance)
        return make

    return register


def call(function: Callable[..., Any], rows: Arrays) -> Any:
    """What a function gives for some rows."""
    return function(rows) if isinstance(rows, dict) else function(*rows)


def _with_readout(program: Callable[..., Any], rows: Callable[[int], Arrays]) -> Callable[..., Any]:
    """`program` followed by a fixed readout of all that it gives.

    Each number of a row is centred and scaled by constants, since untrained programs give rows that are nearly equal, and all of them
    are multiplied by one random matrix: logits of variance about 9.
    """
    sample = rows(_CALIBRATION_ROWS)
    found = np.asarray(_flattened(call(jax.jit(program), sample), _CALIBRATION_ROWS))
    mean, deviation = found.mean(0), found.std(0)
    deviation = np.where(deviation > 1e-3 * np.abs(found).max(), deviation, 1).astype(np.float32)
    rng = np.random.default_rng(11)
    matrix = (rng.standard_normal((found.shape[1], CLASSES)) * _GAIN / found.shape[1] ** 0.5).astype(np.float32)

    @functools.wraps(program)
    def classifier(*args: Any) -> jax.Array:
        flat = _flattened(program(*args), jax.tree.leaves(args)[0].shape[0])
        return (flat - mean) / deviation @ matrix

    return classifier


def _flattened(outputs: Any, rows: Any) -> jax.Array:
    flat = [jnp.asarray(leaf).reshape(rows, -1).astype(jnp.float32) for leaf in jax.tree.leaves(outputs)]
    return jnp.concatenate(flat, 1)


def normal(*shape: int, seed: int = 1, dtype: Any = np.float32) -> Callable[[int], tuple[np.ndarray, ...]]:
    """Rows of this shape from the standard normal distribution."""
    return lambda n: (np.random.default_rng(seed).standard_normal((n, *shape)).astype(dtype),)


def integers(limit: int, *shape: int, seed: int = 2, dtype: Any = np.int32) -> Callable[[int], tuple[np.ndarray, ...]]:
    """Rows of integers below `limit`."""
    return lambda n: (np.random.default_rng(seed).integers(0, limit, (n, *shape)).astype(dtype),)


def both(*makers: Callable[[int], tuple[np.ndarray, ...]]) -> Callable[[int], tuple[np.ndarray, ...]]:
    """Several inputs."""
    return lambda n: tuple(array for maker in makers for array in maker(n))


def weights(*shape: int, scale: float = 1.0, seed: int = 3) -> np.ndarray:
    """Parameters from the normal distribution of this deviation, float32."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)
