"""JAX models in JAX: devices, shapes of batches, precision, and what they say when they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.runner import RawModel
from fo_onnx.errors import DeviceError, OutputError, RunError

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from fo_onnx_jax.devices import tpu_reason  # noqa: E402
from fo_onnx_jax.jaxpr.weight_arguments import split_weights  # noqa: E402
from fo_onnx_jax.plugin import JaxExporter  # noqa: E402
from jax_libraries import equinox as eqx  # noqa: E402

EXPORTER = JaxExporter()
RNG = np.random.default_rng(0)
X = RNG.standard_normal((7, 5), dtype=np.float32)
W = jnp.asarray(RNG.standard_normal((5, 3), dtype=np.float32) * 2)


def opened(
    model: Any, inputs: dict[str, np.ndarray] | None = None, device: Any = "auto", output_name: str | None = None
) -> RawModel:
    return EXPORTER.native(model, inputs or {"0": X}, device, ModelOptions(), OutputOptions(output_name=output_name))


def forward(model: Any, inputs: dict[str, np.ndarray] | None = None, **options: Any) -> np.ndarray:
    return opened(model, inputs, **options).forward(inputs or {"0": X})


def linear(x: Any) -> Any:
    return jnp.asarray(x) @ W


class TestDevices:
    @pytest.mark.parametrize("name", ["auto", "cpu", "cpu:0", ("cpu",)])
    def test_the_cpu(self, name: Any) -> None:
        raw = opened(linear, device=name)
        assert raw.device == "cpu"
        np.testing.assert_allclose(raw.forward({"0": X}), X @ np.asarray(W), atol=1e-5)

    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("tpu", "Say device='cpu', or install JAX for it: https://docs.jax.dev/"),
            ("tpu:0", "Say device='cpu', or install JAX for it"),
            ("cpu:7", "Say one of cpu."),
            ("openvino:0", r"The JAX runner knows cpu, cuda \(or gpu\) and tpu"),
        ],
    )
    def test_what_is_not_there(self, name: str, advice: str) -> None:
        message = rf"device='{name}' was asked for, but jax {jax.__version__} has only cpu.*\. "
        with pytest.raises(DeviceError, match=message + advice):
            opened(linear, device=name)

    @pytest.mark.skipif(jax.default_backend() == "gpu", reason="needs a machine without CUDA")
    def test_cuda_on_a_machine_without_it(self) -> None:
        for name in ("cuda:0", "cuda"):
            with pytest.raises(DeviceError, match=f"device='{name}' was asked for, but jax .* has only cpu"):
                opened(linear, device=name)
        with pytest.raises(DeviceError, match="device='cuda:0' was asked for, but jax"):
            fo.generate(linear, X, device="cuda", runner="native")

    def test_one_twice(self) -> None:
        with pytest.raises(DeviceError, match=r"device=\['cpu', 'cpu'\]: one is named twice; to spread batches"):
            opened(linear, device=("cpu", "cpu"))

    def test_weights_on_a_tpu(self) -> None:
        # There is no TPU here: what JAX says of one are these two attributes.
        tpus = [SimpleNamespace(platform="tpu", id=i) for i in (1, 0)]
        assert tpu_reason(tpus) == "the model lives on a TPU (TPU_0, TPU_1), where ONNX Runtime does not run"
        assert tpu_reason(jax.devices()) is None


SEVERAL = """
import jax, jax.numpy as jnp, numpy as np
import fo_onnx as fo
from fo_onnx.errors import DeviceError
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx_jax.plugin import JaxExporter
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from flax import nnx

rng = np.random.default_rng(0)
x = rng.standard_normal((23, 5), dtype=np.float32)
w = rng.standard_normal((5, 3), dtype=np.float32) * 2
weights, ran = jnp.asarray(w), []

def opened(model, device):
    return JaxExporter().native(model, {"0": x}, device, ModelOptions(), OutputOptions())

def score(x):
    jax.debug.inspect_array_sharding(x, callback=lambda s: ran.append({d.id for d in s.device_set}))
    return x @ weights

# spread over three, at ragged sizes
raw = opened(score, ("cpu", "cpu:1", "cpu:2"))
assert raw.device == "cpu, cpu:1, cpu:2", raw.device
for size in (1, 2, 3, 7, 23):
    np.testing.assert_allclose(raw.forward({"0": x[:size]}), x[:size] @ w, atol=1e-5)
assert ran and all(r == {0, 1, 2} for r in ran), ran
result = fo.generate(score, x, runner="native", device=["cpu:0", "cpu:1", "cpu:2"], batch_size=8)
expected = np.asarray(jax.nn.softmax(x @ w))
np.testing.assert_allclose(result.probs, expected, atol=1e-6)
assert result.meta["engine"]["device"] == "cpu, cpu:1, cpu:2", result.meta["engine"]

# a single other one, for weights in modules, in the function's hands, and within an inner jit
module = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
inner = jax.jit(lambda x: x @ weights)
for model in (score, module, lambda x: inner(x) * 1, jax.jit(lambda x: x @ jax.device_put(w, jax.devices()[1]))):
    raw = opened(model, "cpu:3")
    assert raw.device == "cpu:3", raw.device
    raw.forward({"0": x})
assert ran[-1] == {3}, ran[-1]
assert weights.devices() == {jax.devices()[0]}

# weights that are on a device, or spread over several, run there
there = jax.device_put(weights, jax.devices()[2])
raw = opened(lambda x: jnp.asarray(x) @ there, "auto")
assert raw.device == "cpu:2", raw.device
np.testing.assert_allclose(raw.forward({"0": x}), x @ w, atol=1e-5)
wide = rng.standard_normal((5, 4), dtype=np.float32)
mesh = Mesh(np.array(jax.devices()[:2]), ("model",))
sharded = jax.device_put(wide, NamedSharding(mesh, PartitionSpec(None, "model")))
raw = opened(lambda x: jnp.asarray(x) @ sharded, "auto")
assert raw.device == "cpu, cpu:1", raw.device
for size in (23, 5, 1):
    np.testing.assert_allclose(raw.forward({"0": x[:size]}), x[:size] @ wide, atol=1e-5)
# and can be gathered to one, or copied to several
for device in ("cpu:3", ("cpu", "cpu:3")):
    np.testing.assert_allclose(opened(lambda x: jnp.asarray(x) @ sharded, device).forward({"0": x}), x @ wide, atol=1e-5)

try:
    opened(score, "cpu:4")
except DeviceError as err:
    assert "has only cpu, cpu:1, cpu:2, cpu:3. Say one of cpu, cpu:1" in str(err), err
else:
    raise AssertionError("there is no cpu:4")
"""


def test_several_devices(tmp_path: Path) -> None:
    flags = "--xla_force_host_platform_device_count=4"
    run = subprocess.run(
        [sys.executable, "-c", SEVERAL],
        env={**os.environ, "XLA_FLAGS": flags},
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


class TestBatches:
    def test_it_is_compiled_once_per_shape(self) -> None:
        traced: list[Any] = []

        def score(x: Any) -> Any:
            traced.append(x.shape)
            return x @ W

        raw = opened(score)
        traced.clear()
        for size in (4, 4, 3, 4, 3, 4):
            np.testing.assert_allclose(raw.forward({"0": X[:size]}), X[:size] @ np.asarray(W), atol=1e-5)
        assert traced == [(4, 5), (3, 5)]

    def test_only_weights_are_put_on_a_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """To put each batch there takes as long as to run a small model."""
        shapes, put = [], jax.device_put
        monkeypatch.setattr(jax, "device_put", lambda a, *place: (shapes.append(np.shape(a)), put(a, *place))[1])

        raw = opened(linear, device="cpu")
        for size in (4, 3, 4):
            np.testing.assert_allclose(raw.forward({"0": X[:size]}), X[:size] @ np.asarray(W), atol=1e-5)
        assert shapes == [W.shape]

    def test_weights_are_arguments_of_the_program(self) -> None:
        offset = RNG.standard_normal(3, dtype=np.float32)
        inner = jax.jit(lambda x: x @ W)
        for model in (
            linear,
            jax.jit(linear),
            lambda x: inner(x) + offset,
            jax.jit(lambda x: jax.nn.relu(inner(x)) + offset),
        ):
            step, weights = split_weights(model, [jax.ShapeDtypeStruct(X.shape, X.dtype)])
            program = jax.make_jaxpr(step)(weights, X)
            assert [np.shape(w) for w in weights][:1] == [(5, 3)]
            assert not program.consts
            assert not any(e.params["jaxpr"].consts for e in program.eqns if "jaxpr" in e.params)
            np.testing.assert_allclose(step([2 * w for w in weights], X), 2 * np.asarray(model(X)), atol=1e-5)

    def test_results_and_rows_are_the_callers(self) -> None:
        donating = jax.jit(lambda x: x * 2 + 1, donate_argnums=0)
        rows = X.copy()
        raw = opened(lambda x: donating(x) @ W, {"0": rows})
        first = raw.forward({"0": rows})
        copy = first.copy()
        raw.forward({"0": -rows})
        np.testing.assert_array_equal(rows, X)
        np.testing.assert_array_equal(first, copy)
        first[:] = 0  # may be written to, as an array of one's own
        np.testing.assert_array_equal(raw.forward({"0": rows}), copy)

    def test_what_cannot_be_traced_runs_step_by_step(self, caplog: pytest.LogCaptureFixture) -> None:
        def branches(x: Any) -> Any:
            return jnp.asarray(x) @ W * (2 if x.sum() > -1e9 else 1)

        def in_numpy(x: Any) -> Any:
            return jnp.asarray(np.asarray(x) @ np.asarray(W))

        with caplog.at_level("INFO", "fo_onnx_jax"):
            np.testing.assert_allclose(forward(branches), 2 * X @ np.asarray(W), atol=1e-5)
            np.testing.assert_allclose(forward(in_numpy), X @ np.asarray(W), atol=1e-5)
        assert "branches cannot be compiled and runs step by step" in caplog.text

    def test_closed_twice(self) -> None:
        raw = opened(linear)
        raw.close()
        raw.close()
        with pytest.raises(RunError, match="running linear in JAX: the model is closed"):
            raw.forward({"0": X})

    def test_several_inputs(self) -> None:
        left, right = X, X[:, :2]
        expected = left @ np.asarray(W) + right.sum(1, keepdims=True)

        def two(left: Any, right: Any) -> Any:
            return left @ W + right.sum(1, keepdims=True)

        def one_dict(batch: Any) -> Any:
            return two(**batch)

        def nested(batch: Any) -> Any:
            return two(batch["image"]["left"], batch["image"]["right"][0])

        for model, inputs in (
            (two, {"0": left, "1": right}),
            (jax.jit(two), {"left": left, "right": right}),
            (one_dict, {"left": left, "right": right}),
            (nested, {"image.left": left, "image.right.0": right}),
        ):
            np.testing.assert_allclose(forward(model, inputs), expected, atol=1e-5)


class TestOutputs:
    def test_the_one_that_is_meant(self) -> None:
        def pair(x: Any) -> Any:
            return {"scores": x @ W, "features": jnp.tanh(x)}

        np.testing.assert_allclose(forward(pair, output_name="features"), np.tanh(X), atol=1e-6)
        with pytest.raises(
            OutputError, match=r"no output called 'logits'; .* outputs are scores \(7, 3\), features \(7, 5\)"
        ):
            forward(pair)
        with pytest.raises(OutputError, match=r"no output 'q'; its outputs are"):
            forward(pair, output_name="q")

    def test_logits_with_a_cache_beside(self) -> None:
        def model(x: Any) -> Any:
            return {"logits": x @ W, "cache": jnp.zeros((2, 2))}

        assert forward(model).shape == (7, 3)

    def test_no_array(self) -> None:
        with pytest.raises(OutputError, match="model returns a NoneType, which holds no tensor"):
            forward(lambda x: jnp.tanh(x) and None if False else [None][jnp.ndim(x) * 0])
        with pytest.raises(OutputError, match="returns a list of str"):
            forward(lambda x: ["cat"] * jnp.shape(x)[0])


class TestNotBatched:
    @pytest.mark.parametrize(
        "model",
        [lambda x: W.T @ x, eqx.nn.MLP(5, 3, 8, 1, key=jax.random.key(0)), jax.jit(lambda x: jnp.tanh(W).T @ x)],
    )
    def test_it_fails(self, model: Any) -> None:
        with pytest.raises(
            RunError,
            match=r"running \w+ in JAX on x: float32 \(7, 5\) failed: TypeError: dot_general .*\. It is not batched: it takes "
            r"one sample, and gives \(3,\) for it\. Give jax\.vmap\(model\), which takes a batch",
        ):
            forward(model)

    def test_it_mixes_the_rows(self) -> None:
        with pytest.raises(
            OutputError,
            match=r"gives an output of shape \(3,\) for 7 rows; one row per sample .* Give jax\.vmap\(model\)",
        ):
            forward(lambda x: jnp.concatenate([x.mean()[None], x.max()[None], x.min()[None]]))

    def test_models_of_batches_that_take_samples_too(self) -> None:
        assert forward(lambda x: (x @ W)[1:]).shape == (6, 3), "the core says what is wrong with it"

        def refuse(rows: Any) -> Any:
            raise ValueError("no such rows")

        def called_back(x: Any) -> Any:
            return jax.pure_callback(refuse, jax.ShapeDtypeStruct(x.shape, x.dtype), x) @ W

        with pytest.raises(RunError, match="running called_back in JAX on x: .* failed") as caught:
            forward(called_back)
        assert "vmap" not in str(caught.value)

    def test_vmap_mends_it(self) -> None:
        np.testing.assert_allclose(forward(jax.vmap(lambda x: W.T @ x)), X @ np.asarray(W), atol=1e-5)

    def test_rows_that_do_not_fit_a_batched_model_are_no_sign_of_it(self) -> None:
        with pytest.raises(
            RunError, match=r"running model in JAX on x: float32 \(7, 4\) failed: .*got \(4,\) and \(5,\)$"
        ):
            forward(lambda x: x @ W, {"0": X[:, :4]})


class TestPrecision:
    def test_bfloat16(self) -> None:
        half = W.astype(jnp.bfloat16)

        def score(x: Any) -> Any:
            return jnp.tanh(x) @ half

        raw = opened(score)
        exact = np.tanh(X) @ np.asarray(half.astype(jnp.float32))
        np.testing.assert_allclose(raw.forward({"0": X}), exact, atol=1e-5)
        assert raw.original is not None
        rough = raw.original.forward({"0": X})
        assert rough.dtype == np.float32
        np.testing.assert_array_equal(rough, np.asarray(score(X.astype(jnp.bfloat16)), np.float32))
        assert 1e-4 < np.abs(rough - exact).max() < 0.2

    def test_float_rows_become_what_the_weights_are(self) -> None:
        kernel = jnp.ones((3, 3, 1, 4), jnp.bfloat16)
        images = RNG.standard_normal((2, 6, 6, 1))

        def convolve(x: Any) -> Any:  # which refuses arguments of different dtypes
            return jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            ).mean((1, 2))

        for rows in (images, images.astype(np.float32), images.astype(np.float16)):
            raw = opened(convolve, {"0": rows})
            assert raw.original is not None
            np.testing.assert_allclose(raw.original.forward({"0": rows}), raw.forward({"0": rows}), atol=0.2)

    def test_float32_has_no_original(self) -> None:
        assert opened(linear).original is None

    def test_tokens(self) -> None:
        table = jnp.asarray(RNG.standard_normal((10, 3), dtype=np.float32))
        tokens = RNG.integers(0, 10, (7, 4))
        assert tokens.dtype == np.int64
        np.testing.assert_allclose(
            forward(lambda t: table[t].sum(1), {"0": tokens}), np.asarray(table)[tokens].sum(1), atol=1e-5
        )

    def test_64_bits(self) -> None:
        program = (
            "import jax; jax.config.update('jax_enable_x64', True)\n"
            "import jax.numpy as jnp, numpy as np, fo_onnx as fo\n"
            "from fo_onnx.contracts.options import ModelOptions, OutputOptions\n"
            "from fo_onnx_jax.plugin import JaxExporter\n"
            "w = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)))\n"
            "x = np.random.default_rng(1).standard_normal((7, 5))\n"
            "for rows in (x, x.astype(np.float32)):\n"
            "    raw = JaxExporter().native(lambda x: x @ w, {'0': rows}, 'cpu', ModelOptions(), OutputOptions())\n"
            "    output = raw.forward({'0': rows})\n"
            "    assert w.dtype == output.dtype == np.float64\n"
            "    np.testing.assert_allclose(output, rows @ np.asarray(w), atol=1e-12)\n"
            "half = w.astype(jnp.float32)\n"
            "raw = JaxExporter().native(lambda x: x @ half, {'0': x}, 'cpu', ModelOptions(), OutputOptions())\n"
            "assert raw.forward({'0': x}).dtype == (jnp.asarray(x) @ half).dtype == np.float64\n"
            # One that takes float32 alone gets that; one that counts seconds gets them all.
            "strict = lambda x: jax.lax.dot_general(x, half, (((1,), (0,)), ((), ()))) if x.dtype == half.dtype else 1 / 0\n"
            "raw = JaxExporter().native(strict, {'0': x}, 'cpu', ModelOptions(), OutputOptions())\n"
            "assert raw.forward({'0': x}).dtype == np.float32\n"
            "phase = lambda x: (x % 60 / 60).astype(jnp.float32) @ half\n"
            "seconds = np.round(1.7e9 + 500 * x)\n"
            "raw = JaxExporter().native(phase, {'0': seconds}, 'cpu', ModelOptions(), OutputOptions())\n"
            "np.testing.assert_allclose(raw.forward({'0': seconds}), phase(jnp.asarray(seconds)), atol=1e-6)\n"
            "assert fo.generate(phase, seconds, runner='onnx').meta['parity']['max_tv'] < 1e-5\n"
            "assert fo.generate(lambda x: x @ w, x, runner='native').probs.dtype == np.float32\n"
        )
        run = subprocess.run([sys.executable, "-c", program], timeout=120, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr


def test_a_loop_over_the_whole_batch_is_reported_although_no_export_is_tried() -> None:
    """Its rows depend on each other; natively by choice, nothing else would say so."""

    def halved(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda a: jnp.abs(a).max() > 1, lambda a: a / 2, x * jnp.ones(()))[:, :3] * 5

    rows = (
        np.random.default_rng(0).standard_normal((40, 6), dtype=np.float32)
        * np.linspace(0.1, 4, 40, dtype=np.float32)[:, None]
    )
    with pytest.warns(fo.FallbackWarning, match="the model mixes the rows of a batch"):
        result = fo.generate(halved, rows)

    assert result.meta["runner"]["kind"] == "native"
    assert "a Loop in ONNX is slower than jax.jit; the model mixes the rows" in result.meta["runner"]["reason"]
