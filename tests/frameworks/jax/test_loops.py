"""Loops in JAX models: which of them are unrolled, and which are a reason to run the model natively."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from fo_onnx_jax.jaxpr.loops import find_loops, unroll_short_scans  # noqa: E402
from jax import lax  # noqa: E402
from jax_libraries import linen  # noqa: E402

import fo_onnx as fo  # noqa: E402

STEPS, FEATURES = 5, 3
SLOW = "and a Loop in ONNX is slower than jax.jit"


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def rows(batch: int) -> np.ndarray:
    return weights(batch, STEPS, FEATURES, seed=1)


def short(x: Any) -> Any:
    return lax.fori_loop(0, STEPS, lambda i, a: a * 0.5 + 1, x)


def gru(name: str = "GRUCell") -> Callable[[Any], Any]:
    module = linen.RNN(getattr(linen, name)(features=4))
    variables = module.init(jax.random.key(0), rows(2))
    return lambda x: module.apply(variables, x)[:, -1] * 3


def test_short_scans_are_unrolled() -> None:
    unrolled = jax.make_jaxpr(unroll_short_scans(short))(rows(2))
    assert [e.params["unroll"] for e in unrolled.jaxpr.eqns if e.primitive.name == "scan"] == [STEPS]
    np.testing.assert_allclose(unroll_short_scans(short)(rows(2)), short(rows(2)), rtol=1e-6)
    assert find_loops(short, rows(2)) == []


@pytest.mark.parametrize(
    ("steps", "body"),
    [
        (33, lambda i, a: a * 0.5 + 1),
        (32, lambda i, a: sum((jnp.sin(a * k) for k in range(9)), a)),
        (5, lambda i, a: jnp.tanh(a @ weights(FEATURES, FEATURES))),
        (5, lambda i, a: lax.fori_loop(0, 2, lambda j, b: b + 1, a)),
        (5, lambda i, a: lax.cond(a.sum() > 0, lambda b: b, lambda b: -b, a)),
    ],
    ids=["many steps", "many equations", "a matrix product", "a scan within", "a branch within"],
)
def test_scans_that_are_not_short(steps: int, body: Any) -> None:
    loops = find_loops(lambda x: lax.fori_loop(0, steps, body, x), rows(2))
    assert loops == [f"it holds a lax.scan over {steps} steps, {SLOW}"]


def test_without_unrolling_every_scan_is_a_loop() -> None:
    assert find_loops(short, rows(2), unrolls_short_scans=False) == [f"it holds a lax.scan over {STEPS} steps, {SLOW}"]


def test_loops_of_one_kind_are_said_once() -> None:
    def two(x: Any) -> Any:
        return gru()(x) + gru("OptimizedLSTMCell")(x)

    assert find_loops(two, rows(2)) == [f"it holds a lax.scan over {STEPS} steps, {SLOW}"]


def test_loops_that_are_no_scans() -> None:
    def halved(x: Any) -> Any:
        return lax.while_loop(lambda a: jnp.abs(a).max() > 0.1, lambda a: a * 0.5, x)

    assert find_loops(halved, rows(2)) == [f"it holds a while loop, {SLOW}"]
    nested = find_loops(lambda x: lax.cond(x.sum() > 0, halved, lambda a: a, x), rows(2))
    assert nested == [f"it holds a loop inside of a lax.cond, {SLOW}"]


def test_loops_within_jit_count() -> None:
    assert find_loops(jax.jit(gru()), rows(2)) == [f"it holds a lax.scan over {STEPS} steps, {SLOW}"]


def test_a_function_that_asks_for_its_batch_cannot_be_exported_either() -> None:
    with pytest.raises(jax.core.InconclusiveDimensionOperation):
        find_loops(lambda x: gru()(x) * (1.0 if x.shape[0] > 2 else 2.0), rows(2))


def test_a_scan_over_the_batch_is_a_loop() -> None:
    def running(x: Any) -> Any:
        return lax.scan(lambda h, row: (jnp.tanh(h + row), h), jnp.zeros((STEPS, FEATURES)), x)

    assert find_loops(running, rows(2)) == [f"it holds a lax.scan over batch steps, {SLOW}"]


def test_loops_over_weights_alone_are_none() -> None:
    def scaled(x: Any) -> Any:
        return x * lax.while_loop(lambda a: a.max() > 1, lambda a: a * 0.5, jnp.asarray(weights(FEATURES)) + 9)

    assert find_loops(scaled, rows(2)) == []


def test_a_function_that_cannot_be_traced() -> None:
    with pytest.raises(jax.errors.TracerBoolConversionError):
        find_loops(lambda x: x if x.sum() > 0 else -x, rows(2))


@pytest.mark.parametrize("cell", ["GRUCell", "OptimizedLSTMCell", "SimpleCell"])
def test_a_recurrence_runs_natively_by_choice_and_as_a_loop_where_onnx_is_asked_for(cell: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    model, data = gru(cell), rows(30)

    chosen = fo.generate(model, data)
    in_onnx = fo.generate(model, data, runner="onnx")

    assert chosen.meta["runner"]["kind"] == "native"
    assert chosen.meta["runner"]["reason"] == f"it holds a lax.scan over {STEPS} steps, {SLOW}"
    assert in_onnx.meta["runner"]["kind"] == "onnx"
    np.testing.assert_allclose(in_onnx.probs, chosen.probs, atol=1e-6)


def test_short_scans_leave_no_loop_in_the_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    import onnx

    fo.export(lambda x: short(x)[:, 0] @ weights(FEATURES, 4), rows(20), tmp_path / "net.onnx")
    assert "Loop" not in {n.op_type for n in onnx.load(tmp_path / "net.onnx").graph.node}
