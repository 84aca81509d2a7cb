from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("jax")

import jax
import jax.numpy as jnp
import onnx
import onnxruntime as ort
from fo_onnx_jax import recurrent_nodes
from fo_onnx_jax.lowering import write_onnx
from recurrent_nets import FEATURES, HIDDEN, STEPS, built, rows, weights

from fo_onnx.spec import TensorSpec


def exported(function, path, *, shape=(STEPS, FEATURES), opset=18):
    """A session on what a function of (batch, *shape) becomes, and the names of its operators."""
    write_onnx(function, [TensorSpec("x", "float32", (None, *shape))], path, opset=opset, who="net")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]), [n.op_type for n in model.graph.node]


def joined(function):
    """One output of all: the last states and the stacked ones, in a row."""

    def single(x):
        return jnp.concatenate([v.reshape(x.shape[0], -1) for v in jax.tree.leaves(function(x))], axis=1)

    return single


def check(session, function, shape=(STEPS, FEATURES)):
    for batch in (4, 7, 1):
        x = rows(batch, shape=shape)
        np.testing.assert_allclose(session.run(None, {"x": x})[0], function(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["equinox_lstm", "haiku_lstm", "lstm_with_one_sigmoid_for_three_gates"])
def test_an_lstm_is_onnxs(name, tmp_path):
    function = joined(built(name)[1])
    session, operators = exported(function, tmp_path / "m.onnx")
    assert operators.count("LSTM") == 1
    assert "Loop" not in operators
    check(session, function)


@pytest.mark.parametrize(
    "name", ["linen_gru_reversed", "haiku_gru", "gru_with_einsum_and_jit", "rnn_on_two_sequences", "gru_without_reset"]
)
@pytest.mark.parametrize("unrolled", [True, False])
def test_gru_and_rnn_as_steps_and_as_operators(name, unrolled, tmp_path, monkeypatch):
    kind, net = built(name)
    function = joined(net)
    monkeypatch.setattr(recurrent_nodes, "UNROLLED_STEPS", STEPS if unrolled else STEPS - 1)
    session, operators = exported(function, tmp_path / "m.onnx")
    assert operators.count(kind) == (not unrolled)
    assert "Loop" not in operators
    check(session, function)


def test_two_layers_and_other_operator_sets(tmp_path):
    first, second = weights(FEATURES, HIDDEN), weights(HIDDEN, HIDDEN)

    def function(x):
        def layer(x, w, u):
            def cell(h, x_t):
                h = jnp.tanh(x_t @ w + h @ u)
                return h, h

            return jax.lax.scan(cell, jnp.zeros((x.shape[1], HIDDEN)), x)[1]

        hidden = layer(jnp.swapaxes(x, 0, 1), first, second)
        return jax.nn.softmax(layer(hidden, second, second)[-1])

    for opset in (13, 17):
        session, operators = exported(function, tmp_path / f"{opset}.onnx", opset=opset)
        assert operators.count("Tanh") == 2 * STEPS
        check(session, function)


def test_short_scans_leave_no_loop(tmp_path):
    def function(x):
        return jax.lax.fori_loop(0, 5, lambda i, a: a * 0.5 + 1, x)

    session, operators = exported(function, tmp_path / "m.onnx")
    assert "Loop" not in operators
    check(session, function)


def test_a_recurrence_in_bfloat16(tmp_path):
    w, u = (jnp.asarray(weights(n, HIDDEN), jnp.bfloat16) for n in (FEATURES, HIDDEN))

    def net(w, u):
        def function(x):
            zero = jnp.zeros((x.shape[0], HIDDEN), w.dtype)
            steps = jnp.swapaxes(x, 0, 1).astype(w.dtype)
            return jax.lax.scan(lambda h, x_t: (jnp.tanh(x_t @ w + h @ u), None), zero, steps)[0]

        return function

    session, operators = exported(net(w, u), tmp_path / "m.onnx")
    assert "Loop" not in operators
    check(session, net(w.astype(jnp.float32), u.astype(jnp.float32)))
