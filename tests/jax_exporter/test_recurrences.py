from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("jax")

import jax
import jax.numpy as jnp
from fo_onnx_jax.cells import UnlikeCellError
from fo_onnx_jax.interpretation import rewritten
from fo_onnx_jax.matching import recognise, recognised
from fo_onnx_jax.recurrences import recurrences_fused, unfused_loops
from jax import export, lax
from recurrent_nets import FEATURES, HIDDEN, NETS, STEPS, built, over_steps, rows, weights


def scans(function, *, batch=None, shape=(STEPS, FEATURES)):
    """What each scan of a function is recognised as: a `Recurrence`, or why it is none."""
    found = []

    def look(equation, values, evaluate):
        try:
            found.append(recognised(equation, values))
        except UnlikeCellError as err:
            assert recognise(equation, values) is None
            found.append(str(err))
        return NotImplemented

    size = export.symbolic_shape("b")[0] if batch is None else batch
    jax.make_jaxpr(rewritten(function, {"scan": look}))(jax.ShapeDtypeStruct((size, *shape), np.float32))
    return found


def same(found, expected, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NETS)
def test_a_recurrence_is_recognised_and_gives_the_same(name):
    kind, function = built(name)
    (found,) = scans(function)
    assert found.kind == kind
    assert (found.hidden_size, found.length) == (HIDDEN, STEPS)
    fused = recurrences_fused(function)
    x = rows(6)
    assert "onnx_recurrence" in str(jax.make_jaxpr(fused)(x))
    same(jax.jit(fused)(x), function(x))
    assert unfused_loops(function, x) == []


@pytest.mark.parametrize("name", ["linen_gru", "haiku_lstm", "rnn_with_relu", "gru_by_difference"])
def test_a_recurrence_of_a_known_batch(name):
    kind, function = built(name)
    # As many rows as units, and a single one.
    for batch in (HIDDEN, 1):
        (found,) = scans(function, batch=batch)
        assert found.kind == kind


def test_where_the_reset_gate_stands():
    assert [f.linear_before_reset for f in scans(built("linen_gru")[1])] == [True]
    assert [f.linear_before_reset for f in scans(built("haiku_gru")[1])] == [False]


def test_activations_and_direction():
    (found,) = scans(built("gru_with_einsum_and_jit")[1])
    assert found.activations == ("Sigmoid", "Relu")
    assert not found.reverse
    (found,) = scans(built("lstm_with_one_sigmoid_for_three_gates")[1])
    assert found.activations == ("Sigmoid", "Tanh", "Tanh")
    assert found.reverse
    assert (found.memory, found.hidden, found.stacked) == (0, 1, 0)


def test_weights_are_those_of_the_cell():
    w, u, b = weights(FEATURES, HIDDEN), weights(HIDDEN, HIDDEN), 100 * weights(HIDDEN)

    def cell(h, x):
        h = jnp.tanh(x @ w + h @ u + b)
        return h, None

    (found,) = scans(over_steps(cell))
    np.testing.assert_array_equal(found.input_weights, w.T)
    np.testing.assert_array_equal(found.recurrent_weights, u.T)
    np.testing.assert_array_equal(found.input_bias + found.recurrent_bias, b)


def test_a_carry_that_stays_as_it_is():
    w, u = weights(FEATURES, HIDDEN), weights(HIDDEN, HIDDEN)

    def function(x):
        def cell(carry, x_t):
            h, scale = carry
            return (jnp.tanh(x_t @ w * scale + h @ u), scale), None

        return lax.scan(cell, (jnp.zeros((x.shape[0], HIDDEN)), jnp.float32(0.5)), jnp.swapaxes(x, 0, 1))[0]

    (found,) = scans(function)
    assert found.kind == "RNN"
    same(recurrences_fused(function)(rows(3)), function(rows(3)))


def test_sequences_that_nothing_reads():
    w, u = weights(FEATURES, HIDDEN), weights(HIDDEN, HIDDEN)

    def function(x):
        keys = jax.random.split(jax.random.key(0), STEPS)

        def cell(h, now):
            _, x_t = now
            h = jnp.tanh(x_t @ w + h @ u)
            return h, h

        return lax.scan(cell, jnp.zeros((x.shape[0], HIDDEN)), (keys, jnp.swapaxes(x, 0, 1)))

    (found,) = scans(function)
    assert found.kind == "RNN"
    assert found.sequences == (1,)
    same(recurrences_fused(function)(rows(3)), function(rows(3)))


def test_a_state_without_a_sequence():
    u = weights(HIDDEN, HIDDEN)

    def function(x):
        return lax.scan(lambda h, _: (jnp.tanh(h @ u), None), x[:, 0, :1] * jnp.ones((1, HIDDEN)), None, length=7)[0]

    assert scans(function) == ["it reads no sequence"]


def w_and_u(gates=1):
    return weights(FEATURES, gates * HIDDEN), weights(HIDDEN, gates * HIDDEN)


def clipped(h, x):
    w, u = w_and_u()
    # Only far out does it differ from a plain cell.
    h = jnp.tanh(jnp.clip(x @ w + h @ u, -50, 50))
    return h, h


def mixing_rows(h, x):
    w, u = w_and_u()
    h = jnp.tanh(x @ w + (h - 0.1 * h.sum(0)) @ u)
    return h, h


def nearly_a_gru(h, x):
    w, u = w_and_u(3)
    a, b = jnp.split(x @ w, 3, -1), jnp.split(h @ u, 3, -1)
    z, r = jax.nn.sigmoid(a[0] + b[0]), jax.nn.sigmoid(a[1] + b[1])
    n = jnp.tanh(a[2] + r * b[2])
    h = 1.001 * (1 - z) * n + z * h
    return h, h


def gru_with_crossed_gates(h, x):
    w, u = w_and_u(3)
    a, b = jnp.split(x @ w, 3, -1), jnp.split(h @ u, 3, -1)
    z, r = jax.nn.sigmoid(a[0] + b[0]), jax.nn.sigmoid(a[1] + b[1])
    n = jnp.tanh(a[2] + z * b[2])
    z = lax.rev(z, (1,))
    h = (1 - z) * n + z * h + 0 * r
    return h, h


def with_layer_norm(h, x):
    w, u = w_and_u()
    v = x @ w + h @ u
    h = jnp.tanh((v - v.mean(-1, keepdims=True)) / jnp.sqrt(v.var(-1, keepdims=True) + 1e-5))
    return h, h


def not_affine(h, x):
    w, u = w_and_u()
    h = jnp.tanh((x @ w) ** 2 + h @ u)
    return h, h


def giving_something_else(h, x):
    w, u = w_and_u()
    h = jnp.tanh(x @ w + h @ u)
    return h, 2 * h


def giving_the_state_before(h, x):
    w, u = w_and_u()
    return jnp.tanh(x @ w + h @ u), h


def masked(h, x):
    w, u = w_and_u()
    h = jnp.where(x[:, :1] > 0, jnp.tanh(x @ w + h @ u), h)
    return h, h


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        (clipped, "its body holds (max|min|clamp)"),
        (mixing_rows, "its equations are none of theirs"),
        (nearly_a_gru, "its equations are none of theirs"),
        (gru_with_crossed_gates, "its equations are none of theirs"),
        (with_layer_norm, "its body holds (sqrt|div|rsqrt)"),
        (not_affine, "its equations are none of theirs"),
        (giving_something_else, "its equations are none of theirs"),
        (giving_the_state_before, "its equations are none of theirs"),
        (masked, "its body holds select_n"),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_what_is_none_of_them_stays_a_loop(cell, why):
    function = over_steps(cell)
    (found,) = scans(function)
    assert isinstance(found, str)
    assert re.search(why, found), found
    assert "onnx_recurrence" not in str(jax.make_jaxpr(recurrences_fused(function))(rows(2)))
    (loop,) = unfused_loops(function, rows(2))
    assert re.fullmatch(
        rf"it holds a lax.scan over {STEPS} steps that is no LSTM, GRU or RNN of ONNX's \(.*{why}.*\), and a Loop in ONNX is "
        "slower than jax.jit",
        loop,
    )


def test_an_lstm_with_peepholes():
    w, u, p = *w_and_u(4), weights(HIDDEN)

    def cell(states, x):
        h, c = states
        i, f, g, o = jnp.split(x @ w + h @ u, 4, -1)
        c = jax.nn.sigmoid(f + p * c) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    (found,) = scans(over_steps(cell, carries=2))
    assert "its equations are none of theirs (states: 2" in found


def test_an_lstm_that_gives_its_memory():
    w, u = w_and_u(4)

    def cell(states, x):
        h, c = states
        i, f, g, o = jnp.split(x @ w + h @ u, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), c

    assert isinstance(scans(over_steps(cell, carries=2))[0], str)


def test_weights_that_come_from_the_input():
    def function(x):
        context = x.mean(1)
        return over_steps(lambda h, x_t: (jnp.tanh(h * context[:, :1] + x_t[:, :1]), None))(x)

    (found,) = scans(function)
    assert found == "its weights, or what else its steps share, are computed from the input"


def test_steps_that_draw_random_numbers():
    key = jax.random.key(0)

    def cell(h, x):
        return jnp.tanh(h + x[:, :1]) * jax.random.bernoulli(key, 0.5, (HIDDEN,)), None

    assert scans(over_steps(cell)) == ["its steps draw random numbers"]


def test_states_without_a_batch_axis():
    def function(x):
        return lax.scan(lambda h, x_t: (jnp.tanh(h + x_t.sum(0)), None), jnp.zeros(FEATURES), jnp.swapaxes(x, 0, 1))[0]

    (found,) = scans(function)
    assert "its carries have the shapes [(3,)], not (batch, hidden)" in found


def test_other_dtypes_are_not_taken_for_float32():
    u = weights(HIDDEN, HIDDEN).astype(np.float16)

    def function(x):
        zero = jnp.zeros((x.shape[0], HIDDEN), jnp.float16)
        return lax.scan(
            lambda h, x_t: (jnp.tanh(h @ u + x_t[:, :1]), None), zero, jnp.swapaxes(x, 0, 1).astype(u.dtype)
        )[0]

    assert scans(function) == ["not all that its steps read is float32"]


def test_short_scans_are_unrolled():
    def function(x):
        return lax.fori_loop(0, 5, lambda i, a: a * 0.5 + 1, x)

    unrolled = jax.make_jaxpr(recurrences_fused(function))(rows(2))
    assert [e.params["unroll"] for e in unrolled.jaxpr.eqns if e.primitive.name == "scan"] == [5]
    same(recurrences_fused(function)(rows(2)), function(rows(2)))
    assert unfused_loops(function, rows(2)) == []
    long = unfused_loops(lambda x: lax.fori_loop(0, 500, lambda i, a: a * 0.5 + 1, x), rows(2))
    assert len(long) == 1
    assert long[0].startswith("it holds a lax.scan over 500 steps that is no LSTM")


def test_loops_that_are_no_scans():
    def function(x):
        return lax.while_loop(lambda a: jnp.abs(a).max() > 0.1, lambda a: a * 0.5, x)

    assert unfused_loops(function, rows(2)) == ["it holds a while loop, and a Loop in ONNX is slower than jax.jit"]
    nested = unfused_loops(lambda x: lax.cond(x.sum() > 0, function, lambda a: a, x), rows(2))
    assert nested == ["it holds a loop inside of a lax.cond, and a Loop in ONNX is slower than jax.jit"]


def test_long_sequences_of_what_is_slow_in_onnx_runtime():
    _, function = built("rnn_with_relu")
    (found,) = unfused_loops(function, rows(2, shape=(200, FEATURES)))
    assert found == "it holds an RNN over 200 steps, and ONNX Runtime's is slower than jax.jit beyond 128 steps"
    _, function = built("linen_lstm")
    assert unfused_loops(function, rows(2, shape=(200, FEATURES))) == []


def test_a_function_that_asks_for_its_batch():
    _, function = built("linen_gru")

    def asking(x):
        return function(x)[0] * (1.0 if x.shape[0] == 2 else 2.0)

    assert unfused_loops(asking, rows(2)) == []


def test_a_scan_over_the_batch():
    def function(x):
        return lax.scan(lambda h, row: (jnp.tanh(h + row), h), jnp.zeros((STEPS, FEATURES)), x)

    assert scans(function) == ["it takes as many steps as the batch has rows"]
    (loop,) = unfused_loops(function, rows(2))
    assert "over batch steps that is no LSTM" in loop


def test_loops_over_weights_alone_are_none():
    def function(x):
        scale = lax.while_loop(lambda a: a.max() > 1, lambda a: a * 0.5, jnp.asarray(weights(FEATURES)) + 9)
        return x * scale

    assert unfused_loops(function, rows(2)) == []


def test_where_recurrences_are_not_written_as_onnxs():
    _, function = built("linen_gru")
    (found,) = unfused_loops(function, rows(2), fused=False)
    assert found == f"it holds a lax.scan over {STEPS} steps, and a Loop in ONNX is slower than jax.jit"


def test_a_function_that_cannot_be_traced():
    with pytest.raises(jax.errors.TracerBoolConversionError):
        unfused_loops(lambda x: x if x.sum() > 0 else -x, rows(2))
