"""What the route by jax2onnx must do, checked in an environment with a newer jax: `test_jax2onnx` makes it and runs this there."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from flax import nnx

import fo_onnx as fo
from fo_onnx.contracts.spec import TensorSpec
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import total_variation
from fo_onnx.engine import small_jobs
from fo_onnx.errors import ExportError, FallbackWarning, OutputError, PluginError

ROWS = 23
KEY = jax.random.key(0)
rng = np.random.default_rng(0)
WEIGHT = rng.standard_normal((32, 10)).astype(np.float32)
TABLE = rng.standard_normal((50, 10)).astype(np.float32)
ORIGINALS = {
    "jax.numpy.cumsum": jnp.cumsum,
    "jax.nn.softmax": jax.nn.softmax,
    "flax.linen.max_pool": nn.max_pool,
    "flax.nnx.relu": nnx.relu,
    "flax.linen.MultiHeadDotProductAttention.__call__": nn.MultiHeadDotProductAttention.__call__,
    "flax.linen.MultiHeadAttention.__call__": nn.MultiHeadAttention.__call__,
    "equinox.nn.Linear.__call__": eqx.nn.Linear.__call__,
}
"""Taken before anything was converted."""


@pytest.fixture(autouse=True)
def exports_are_free(monkeypatch):
    """No job is small: this file runs without the tests' conftest.py."""
    monkeypatch.setattr(small_jobs, "expected_export_s", lambda framework: 0.0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


class LinenCnn(nn.Module):
    """Pools called by position, which jax2onnx's replacements do not take, over negative activations."""

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3))(x))
        x = nn.max_pool(x - 3.0, (3, 3), (2, 2), ((1, 1), (1, 1)))
        x = nn.avg_pool(nn.gelu(x), (2, 2), (2, 2))
        return nn.Dense(10)(x.reshape(x.shape[0], -1)) * 40


class LinenMlp(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.LayerNorm()(nn.relu(nn.Dense(64)(x)))) * 4


class LinenAttention(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(nn.MultiHeadAttention(num_heads=2)(x, x).mean(1)) * 20


class NnxCnn(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
        self.dense = nnx.Linear(8 * 64, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.norm(self.conv(x))), (2, 2), (2, 2))
        return self.dense(x.reshape(x.shape[0], -1)) * 6


def linen(module, x):
    return functools.partial(module.apply, module.init(KEY, x[:1])), x


def haiku_cnn(x):
    hidden = hk.max_pool(jax.nn.relu(hk.Conv2D(8, 3)(x)), (2, 2, 1), (2, 2, 1), "SAME")
    return hk.Linear(10)(hidden.reshape(hidden.shape[0], -1)) * 6


def haiku(x):
    transformed = hk.without_apply_rng(hk.transform(haiku_cnn))
    return functools.partial(transformed.apply, transformed.init(jax.random.PRNGKey(0), x[:1])), x


def image_pool(x):
    """A max-pool over four axes: batch, two axes that are pooled, channels."""
    pooled = jax.lax.reduce_window(
        x - 5.0, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    )
    return (pooled.reshape(x.shape[0], -1)[:, :32] + 3.5) @ WEIGHT


def attention(x):
    return jax.nn.dot_product_attention(x * 3, x, x).mean(1).reshape(x.shape[0], -1) @ WEIGHT[:16]


def chained(x):
    """An interior padding, for which ONNX's Pad has no argument."""
    return jax.lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1)))[:, :32] @ WEIGHT


PROGRAMS = {
    "plain": lambda: (lambda x: jax.nn.softmax(jnp.tanh(x @ WEIGHT) * 4, -1), normal(ROWS, 32)),
    "jit": lambda: (jax.jit(lambda x: jax.nn.relu(x @ WEIGHT)), normal(ROWS, 32)),
    "vmap": lambda: (jax.vmap(lambda x: jax.nn.log_softmax(x @ WEIGHT)), normal(ROWS, 32)),
    "linen_mlp": lambda: linen(LinenMlp(), normal(ROWS, 32)),
    "linen_cnn": lambda: linen(LinenCnn(), normal(ROWS, 16, 16, 3)),
    "linen_attention": lambda: linen(LinenAttention(), normal(ROWS, 7, 16)),
    "nnx_cnn": lambda: (NnxCnn(nnx.Rngs(0)), normal(ROWS, 16, 16, 3)),
    "equinox_mlp": lambda: (jax.vmap(eqx.nn.MLP(32, 10, 64, 2, key=KEY)), normal(ROWS, 32) * 20),
    "haiku_cnn": lambda: haiku(normal(ROWS, 16, 16, 3)),
    "cumsum": lambda: (lambda x: jnp.cumsum(x, 1) @ WEIGHT, normal(ROWS, 32)),
    "attention": lambda: (attention, normal(ROWS, 5, 2, 8)),
    "max_pool_over_four_axes": lambda: (image_pool, normal(ROWS, 8, 8, 3)),
    "tokens": lambda: (lambda i: jnp.asarray(TABLE)[i].sum(1), rng.integers(0, 50, (ROWS, 6))),
}


def rows_of(model, data):
    scores = np.asarray(model(jnp.asarray(data)), np.float64)
    if np.abs(scores.sum(1) - 1).max() < 1e-3 and (scores >= 0).all():
        return scores
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def assert_as_it_was():
    now = {
        "jax.numpy.cumsum": jnp.cumsum,
        "jax.nn.softmax": jax.nn.softmax,
        "flax.linen.max_pool": nn.max_pool,
        "flax.nnx.relu": nnx.relu,
        "flax.linen.MultiHeadDotProductAttention.__call__": nn.MultiHeadDotProductAttention.__call__,
        "flax.linen.MultiHeadAttention.__call__": nn.MultiHeadAttention.__call__,
        "equinox.nn.Linear.__call__": eqx.nn.Linear.__call__,
    }
    assert [n for n in now if now[n] is not ORIGINALS[n]] == []
    assert "__call__" not in vars(nn.MultiHeadAttention)
    assert not jax.config.jax_enable_x64


@pytest.fixture(autouse=True)
def everything_as_it_was():
    yield
    assert_as_it_was()


@pytest.mark.parametrize("name", PROGRAMS)
def test_rows_are_those_of_jax(name):
    model, data = PROGRAMS[name]()
    truth = rows_of(model, data)
    result = fo.generate(model, data, runner="onnx", batch_size=7, progress=False)
    assert result.meta["runner"]["kind"] == "onnx"
    assert {"jax", "jax2onnx"} <= set(json.loads(json.dumps(result.meta))["versions"])
    assert row_spread(truth) >= 0.05
    assert total_variation(truth, result.probs).max() < 1e-4
    np.testing.assert_array_equal(rows_of(model, data), truth)


class Dropped(eqx.Module):
    """In training mode as it is made: then it asks for a key."""

    linear: eqx.nn.Linear
    drop: eqx.nn.Dropout

    def __init__(self):
        self.linear, self.drop = eqx.nn.Linear(32, 10, key=KEY), eqx.nn.Dropout(0.5)

    def __call__(self, x):
        return self.drop(self.linear(x) * 20)


def test_a_module_under_vmap_runs_in_evaluation_mode():
    data = normal(ROWS, 32)
    expected = rows_of(jax.vmap(eqx.nn.inference_mode(Dropped())), data)
    for model in (jax.vmap(Dropped()), jax.jit(jax.vmap(Dropped())), eqx.filter_vmap(Dropped())):
        result = fo.generate(model, data, runner="onnx", progress=False)
        assert total_variation(expected, result.probs).max() < 1e-4


def test_the_identity_of_a_model_is_stable():
    from fo_onnx_jax.plugin import JaxExporter

    for make in PROGRAMS.values():
        model, data = make()
        known = JaxExporter().fingerprint(model, {"0": data})
        model(jnp.asarray(data))
        assert JaxExporter().fingerprint(model, {"0": data}) == known


def test_an_exported_file_runs_alone(tmp_path):
    model, data = PROGRAMS["linen_cnn"]()
    exported = fo.export(model, data[:4], tmp_path / "net.onnx")
    assert exported.spec.inputs[0].shape == (None, 16, 16, 3)
    result = fo.generate(tmp_path / "net.onnx", data, progress=False)
    assert total_variation(rows_of(model, data), result.probs).max() < 1e-4


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (chained, "interior padding"),
        (lambda x: x @ WEIGHT + jax.random.normal(jax.random.PRNGKey(0), (10,)), "other numbers than jax.random"),
        (lambda x: jax.pure_callback(np.tanh, jax.ShapeDtypeStruct((x.shape[0], 10), x.dtype), x @ WEIGHT), "callback"),
    ],
    ids=["interior padding", "random numbers", "callback"],
)
def test_what_cannot_be_converted_runs_natively_with_the_reason(model, reason):
    data = normal(ROWS, 32)
    with pytest.raises(ExportError, match=reason):
        fo.generate(model, data, runner="onnx", progress=False)
    with pytest.warns(FallbackWarning, match=reason):
        result = fo.generate(model, data, runner="auto", progress=False)
    assert result.meta["runner"]["kind"] == "native"
    assert reason in result.meta["runner"]["reason"]
    assert total_variation(rows_of(model, data), result.probs).max() < 1e-4


def write(function, inputs, path, **options):
    from fo_onnx_jax.jax2onnx.export import write_onnx

    return write_onnx(function, inputs, path, **{"opset": 18, "model_name": "net", **options})


def run_file(path, *arrays):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {i.name: a for i, a in zip(session.get_inputs(), arrays, strict=True)})[0]


def test_jitted_functions_run_as_before(tmp_path):
    # What jax2onnx traces would stay in JAX's caches, and no rule would translate it: of a part that is jitted and has no batch
    # axis the trace is the same one.
    inner = jax.jit(lambda w: jax.nn.softmax(jnp.concatenate([w, w * 2]))[:32] + jax.nn.gelu(jnp.sum(w)))

    def model(x):
        return x @ inner(WEIGHT)

    # Nothing has traced it before: a trace that is there already is used.
    write(model, [TensorSpec("x", "float32", (None, 32))], tmp_path / "net.onnx")
    data = normal(ROWS, 32)
    np.testing.assert_allclose(model(data), data @ np.asarray(inner(WEIGHT)), rtol=1e-4, atol=1e-4)
    assert "jax.numpy" not in str(jax.make_jaxpr(model)(data))


def test_nothing_is_replaced_and_an_error_gives_its_reason(tmp_path):
    @jax.jit
    def weight():
        seen.append(jax.nn.softmax is ORIGINALS["jax.nn.softmax"])
        return jax.nn.softmax(WEIGHT)

    def model(x):
        weight()
        raise RuntimeError("in the model")

    seen = []
    with pytest.raises(
        ExportError, match=r"jax2onnx \d.* with jax \d.* cannot convert net: RuntimeError: in the model"
    ):
        write(model, [TensorSpec("x", "float32", (None, 3))], tmp_path / "net.onnx")
    assert seen == [True]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32", "int64", "float16", "float32", "float64"])
def test_inputs_of_any_dtype(dtype, tmp_path):
    def model(x):
        return jnp.where(x, 1.0, -1.0) @ WEIGHT if dtype == "bool" else x.astype(jnp.float32) @ WEIGHT

    output = write(model, [TensorSpec("x", dtype, (None, 32))], tmp_path / "net.onnx")
    assert output == TensorSpec("output", "float32", (None, 10))
    for rows in (1, 5):
        data = (rng.random((rows, 32)) * 2).astype(dtype)
        out = run_file(tmp_path / "net.onnx", data)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, np.asarray(model(jnp.asarray(data))), rtol=1e-4, atol=1e-4)


def test_half_precision_comes_out_as_float32(tmp_path):
    kernel = normal(3, 3, 3, 8).astype(np.float16)

    def model(x):
        features = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return features.mean((1, 2))

    output = write(model, [TensorSpec("x", "float16", (None, 8, 8, 3))], tmp_path / "net.onnx")
    assert output == TensorSpec("output", "float32", (None, 8))
    data = normal(5, 8, 8, 3).astype(np.float16)
    np.testing.assert_allclose(run_file(tmp_path / "net.onnx", data), np.asarray(model(data)), atol=2e-2)


def test_double_precision_stays_out_and_as_it_was_set(tmp_path):
    with jax.enable_x64(True):
        inputs = [TensorSpec("x", "float64", (None, 32))]
        output = write(lambda x: x @ jnp.asarray(WEIGHT) / jnp.arange(1, 11), inputs, tmp_path / "net.onnx")
        assert jnp.zeros(1).dtype == np.float64
        double = jnp.asarray(WEIGHT, jnp.float64)
        with pytest.raises(ExportError, match="inconsistent type"):
            write(lambda x: x @ double, inputs, tmp_path / "double.onnx")
    assert jnp.zeros(1).dtype == np.float32
    assert output == TensorSpec("output", "float32", (None, 10))
    data = rng.standard_normal((5, 32))
    truth = data @ WEIGHT / np.arange(1, 11)
    np.testing.assert_allclose(run_file(tmp_path / "net.onnx", data), truth, rtol=1e-4, atol=1e-4)
    assert onnx.TensorProto.DOUBLE not in {t.data_type for t in onnx.load(tmp_path / "net.onnx").graph.initializer}
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_several_inputs_one_of_them_called_like_the_output(tmp_path):
    def model(tokens, scale):
        return jnp.asarray(TABLE)[tokens].mean(1) * scale

    inputs = [TensorSpec("tokens", "int32", (None, 3)), TensorSpec("output", "float32", (None, 1))]
    output = write(model, inputs, tmp_path / "net.onnx")
    assert output == TensorSpec("output_1", "float32", (None, 10))
    for rows in (2, 5):
        tokens, scale = rng.integers(0, 50, (rows, 3)).astype(np.int32), normal(rows, 1)
        outputs = run_file(tmp_path / "net.onnx", tokens, scale)
        np.testing.assert_allclose(outputs, np.asarray(model(tokens, scale)), rtol=1e-4, atol=1e-5)


def test_large_weights_go_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("fo_onnx_jax.jax2onnx.export.EXTERNAL_DATA_BYTES", 1000)
    path = tmp_path / "net.onnx"
    write(lambda x: x @ WEIGHT, [TensorSpec("x", "float32", (None, 32))], path)
    assert {p.name for p in tmp_path.iterdir()} == {"net.onnx", "net.onnx.data"}
    assert path.stat().st_size < WEIGHT.nbytes
    data = normal(5, 32)
    np.testing.assert_allclose(run_file(path, data), data @ WEIGHT, rtol=1e-4, atol=1e-4)


def test_a_function_of_one_sample_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"one array \(n, classes\) was expected.*jax\.vmap"):
        write(lambda x: x.sum(0), [TensorSpec("x", "float32", (None, 3))], tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_models_own_errors_pass(tmp_path):
    def model(x):
        raise OutputError("several outputs")

    with pytest.raises(OutputError, match=r"^several outputs"):
        write(model, [TensorSpec("x", "float32", (None, 3))], tmp_path / "net.onnx")


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_the_opset_is_the_one_that_was_asked_for(opset, tmp_path):
    write(
        lambda x: jax.nn.gelu(x @ WEIGHT), [TensorSpec("x", "float32", (None, 32))], tmp_path / "net.onnx", opset=opset
    )
    assert {o.domain: o.version for o in onnx.load(tmp_path / "net.onnx").opset_import}[""] == opset


def test_nothing_is_printed_or_logged(tmp_path, capfd, caplog):
    caplog.set_level(logging.INFO)
    model, data = PROGRAMS["linen_cnn"]()
    write(model, [TensorSpec("x", "float32", (None, *data.shape[1:]))], tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if "jax2onnx" in r.pathname] == []


def test_no_handler_stays_on_the_root_logger(tmp_path, monkeypatch):
    # Where there is none, as in most scripts, logging.info adds one.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    write(lambda x: x @ WEIGHT, [TensorSpec("x", "float32", (None, 32))], tmp_path / "net.onnx")
    assert logging.getLogger().handlers == []


def test_two_threads_convert_at_once(tmp_path):
    def convert(factor):
        path = tmp_path / f"net{factor}.onnx"
        write(lambda x: jnp.cumsum(x * factor, 1) @ WEIGHT, [TensorSpec("x", "float32", (None, 32))], path)
        return path

    data = normal(5, 32)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(convert, range(1, 7)))
    for factor, path in enumerate(paths, 1):
        truth = np.cumsum(data * factor, 1) @ WEIGHT
        np.testing.assert_allclose(run_file(path, data), truth, rtol=1e-3, atol=1e-3)


def test_a_jax2onnx_that_cannot_be_imported_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    message = r"jax2onnx \d.* cannot be imported beside jax \d.*ModuleNotFoundError.*pip install 'fo-onnx\[jax2onnx\]'"
    with pytest.raises(PluginError, match=message):
        write(lambda x: x, [TensorSpec("x", "float32", (None, 3))], tmp_path / "net.onnx")
