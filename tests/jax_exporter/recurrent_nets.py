"""Recurrent nets as each library writes them, and by hand: functions of (batch, steps, features) in JAX."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

STEPS, FEATURES, HIDDEN = 5, 3, 4
NETS: dict[str, tuple[str, Callable[[], Callable[[Any], Any]]]] = {}
"""The operator that each is, and what builds it."""


def net(kind: str) -> Callable[..., Any]:
    def add(build):
        NETS[build.__name__] = (kind, build)
        return build

    return add


def built(name: str) -> tuple[str, Callable[[Any], Any]]:
    """The operator that a net is, and the net."""
    kind, build = NETS[name]
    with warnings.catch_warnings():
        # Libraries use what is deprecated in their dependencies, and warn of it while they are imported.
        warnings.simplefilter("ignore", DeprecationWarning)
        return kind, build()


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def rows(batch: int, *, seed: int = 1, shape: tuple[int, ...] = (STEPS, FEATURES)) -> np.ndarray:
    return weights(batch, *shape, seed=seed)


def over_steps(cell, *, carries: int = 1, **options):
    """The last carry and what the cell gives for each step, batch first."""

    def function(x):
        zero = jnp.zeros((x.shape[0], HIDDEN))
        last, stacked = lax.scan(cell, zero if carries == 1 else (zero,) * carries, jnp.swapaxes(x, 0, 1), **options)
        return jax.tree.leaves((last, jax.tree.map(lambda v: jnp.swapaxes(v, 0, 1), stacked)))

    return function


def linen_rnn(name, **options):
    import flax.linen as nn

    module = nn.RNN(getattr(nn, name)(features=HIDDEN), return_carry=True, **options)
    variables = jax.tree.map(lambda v: v + 0.3, module.init(jax.random.key(0), rows(2)))
    return lambda x: jax.tree.leaves(module.apply(variables, x))


def nnx_rnn(name):
    from flax import nnx

    graph, state = nnx.split(nnx.RNN(getattr(nnx, name)(FEATURES, HIDDEN, rngs=nnx.Rngs(0))))
    # A copy, since a module of the state itself belongs to no trace.
    return lambda x: nnx.merge(graph, state, copy=True)(x)


def haiku_rnn(name):
    import haiku as hk

    def forward(x):
        core = getattr(hk, name)(HIDDEN)
        return hk.dynamic_unroll(core, jnp.swapaxes(x, 0, 1), core.initial_state(x.shape[0]))

    transformed = hk.without_apply_rng(hk.transform(forward))
    parameters = transformed.init(jax.random.PRNGKey(0), rows(2))
    return lambda x: jax.tree.leaves(transformed.apply(parameters, x))


@net("LSTM")
def linen_lstm():
    return linen_rnn("LSTMCell")


@net("LSTM")
def linen_optimized_lstm():
    return linen_rnn("OptimizedLSTMCell")


@net("GRU")
def linen_gru():
    return linen_rnn("GRUCell")


@net("GRU")
def linen_gru_reversed():
    return linen_rnn("GRUCell", reverse=True, keep_order=True)


@net("GRU")
def linen_minimal_gated_unit():
    return linen_rnn("MGUCell")


@net("RNN")
def linen_simple():
    return linen_rnn("SimpleCell")


@net("LSTM")
def nnx_lstm():
    return nnx_rnn("LSTMCell")


@net("LSTM")
def nnx_optimized_lstm():
    return nnx_rnn("OptimizedLSTMCell")


@net("GRU")
def nnx_gru():
    return nnx_rnn("GRUCell")


@net("RNN")
def nnx_simple():
    return nnx_rnn("SimpleCell")


@net("LSTM")
def haiku_lstm():
    return haiku_rnn("LSTM")


@net("GRU")
def haiku_gru():
    return haiku_rnn("GRU")


@net("RNN")
def haiku_vanilla():
    return haiku_rnn("VanillaRNN")


@net("GRU")
def equinox_gru():
    import equinox as eqx

    cell = eqx.nn.GRUCell(FEATURES, HIDDEN, key=jax.random.key(0))
    return jax.vmap(lambda x: lax.scan(lambda h, x_t: (cell(x_t, h), None), jnp.zeros(HIDDEN), x)[0])


@net("LSTM")
def equinox_lstm():
    import equinox as eqx

    cell = eqx.nn.LSTMCell(FEATURES, HIDDEN, key=jax.random.key(0))

    def one(x):
        # The cell is called twice: the same equations twice in one step.
        return lax.scan(lambda s, x_t: (cell(x_t, s), cell(x_t, s)[0]), (jnp.zeros(HIDDEN),) * 2, x)[1]

    return jax.vmap(one)


def hand_gru(update):
    w = [weights(HIDDEN + FEATURES, HIDDEN, seed=s) for s in range(3)]

    def cell(h, x):
        both = jnp.concatenate([h, x], -1)
        z, r = jax.nn.sigmoid(both @ w[0] + 0.5), jax.nn.sigmoid(both @ w[1])
        n = jnp.tanh(jnp.concatenate([r * h, x], -1) @ w[2] - 0.1)
        h = update(z, n, h)
        return h, h

    return over_steps(cell)


@net("GRU")
def gru_keeping_by_z():
    return hand_gru(lambda z, n, h: (1 - z) * n + z * h)


@net("GRU")
def gru_renewing_by_z():
    return hand_gru(lambda z, n, h: (1 - z) * h + z * n)


@net("GRU")
def gru_by_difference():
    return hand_gru(lambda z, n, h: n + z * (h - n))


@net("GRU")
def gru_with_einsum_and_jit():
    w, u = weights(3, HIDDEN, FEATURES), weights(3, HIDDEN, HIDDEN)

    @jax.jit
    def gates(h, x):
        return jnp.einsum("ghf,bf->gbh", w, x), jnp.einsum("ghk,bk->gbh", u, h)

    def cell(h, x):
        a, b = gates(h, x)
        z, r = 1 / (1 + jnp.exp(-(a[0] + b[0]))), 1 / (jnp.exp(-a[1] - b[1]) + 1)
        n = jax.nn.relu(a[2] / 4 + r * b[2] / 4)
        return z * h + n - z * n, None

    return over_steps(cell, unroll=2)


@net("GRU")
def gru_without_reset():
    w = [weights(HIDDEN + FEATURES, HIDDEN, seed=s) for s in range(2)]

    def cell(h, x):
        both = jnp.concatenate([h, x], -1)
        z, n = jax.nn.sigmoid(both @ w[0]), jnp.tanh(both @ w[1])
        return (1 - z) * h + z * n, None

    return over_steps(cell, unroll=STEPS)


@net("LSTM")
def lstm_with_fused_gates():
    w, b = weights(FEATURES + HIDDEN, 4 * HIDDEN), weights(4 * HIDDEN)

    def cell(states, x):
        h, c = states
        f, i, o, g = jnp.split(jnp.concatenate([x, h], -1) @ w + b, 4, axis=-1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), {"h": h, "again": h}

    return over_steps(cell, carries=2)


@net("LSTM")
def lstm_with_one_sigmoid_for_three_gates():
    w, u = weights(4 * HIDDEN, FEATURES), weights(4 * HIDDEN, HIDDEN)

    def cell(states, x):
        c, h = states
        v = x @ w.T + h @ u.T
        gates = jax.nn.sigmoid(v[:, : 3 * HIDDEN])
        o, f, i = (gates[:, k * HIDDEN : (k + 1) * HIDDEN] for k in range(3))
        c = f * c + i * jnp.tanh(v[:, 3 * HIDDEN :])
        return (c, o * jnp.tanh(c)), None

    return over_steps(cell, carries=2, reverse=True)


@net("RNN")
def rnn_with_relu():
    w, u = weights(FEATURES, HIDDEN), weights(HIDDEN, HIDDEN) / 4

    def cell(h, x):
        h = jax.nn.relu(x @ w + h @ u - 0.2)
        return h, h

    return over_steps(cell)


@net("RNN")
def rnn_on_projected_steps():
    w, u = weights(FEATURES, HIDDEN), weights(HIDDEN, HIDDEN)

    def function(x):
        projected = jnp.swapaxes(x @ w, 0, 1)
        return lax.scan(lambda h, v: (jnp.tanh(v + h @ u), None), jnp.zeros((x.shape[0], HIDDEN)), projected)[0]

    return function


@net("RNN")
def rnn_on_two_sequences():
    w, u, v = weights(FEATURES, HIDDEN), weights(HIDDEN, HIDDEN), weights(2, HIDDEN)

    def function(x):
        steps = jnp.swapaxes(x, 0, 1)

        def cell(h, now):
            grid, pair = now
            return jnp.tanh(grid.reshape(-1, FEATURES) @ w + pair @ v + h @ u), None

        sequences = (steps[:, :, None, :], steps[:, :, :2])
        # The first state comes from the input.
        return lax.scan(cell, x[:, 0] @ w, sequences)[0]

    return function
