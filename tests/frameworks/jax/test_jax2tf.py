"""The rules that stand in for jax2tf's, one by one, in ONNX Runtime against JAX; and what a conversion leaves as it was."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("tensorflow")
jax = pytest.importorskip("jax")
if tuple(map(int, jax.__version__.split(".")[:3])) >= (0, 7, 2):
    pytest.skip("jax2tf makes no graphs from jax 0.7.2 on", allow_module_level=True)

import jax.numpy as jnp  # noqa: E402
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
from fo_onnx_jax.jax2tf import large_weights, patches  # noqa: E402
from fo_onnx_jax.jax2tf.export import write_onnx  # noqa: E402
from fo_onnx_jax.jax2tf.rules import windows  # noqa: E402
from fo_onnx_tensorflow import export as tensorflow_export  # noqa: E402
from fo_onnx_tensorflow import weights  # noqa: E402
from jax import lax  # noqa: E402
from jax.experimental.jax2tf import jax2tf  # noqa: E402

from fo_onnx.contracts.spec import TensorSpec  # noqa: E402
from fo_onnx.errors import ExportError, PluginError  # noqa: E402

slow = pytest.mark.slow


def numbers(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def integers(limit, *shape, seed=0, dtype=np.int32):
    return np.random.default_rng(seed).integers(0, limit, shape).astype(dtype)


def converted(function, path, arrays, opset=18):
    """What runs a function over arrays in ONNX Runtime."""
    specs = [TensorSpec(f"x{i}", a.dtype.name, (None, *a.shape[1:])) for i, a in enumerate(arrays)]
    write_onnx(function, specs, path, opset=opset, model_name="the net")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {s.name: a for s, a in zip(specs, batch, strict=True)})[0]


def in_onnx(function, path, *arrays):
    """What a function gives for arrays in ONNX Runtime."""
    return converted(function, path, arrays)(arrays)


def check(function, path, *arrays, **tolerances):
    """At the whole batch and at one row."""
    run = converted(function, path, arrays)
    for batch in (arrays, [a[:1] for a in arrays]):
        expected = np.asarray(jax.jit(function)(*batch))
        np.testing.assert_allclose(run(batch), expected, **{"rtol": 1e-5, "atol": 1e-5, **tolerances})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


# ------------------------------------------------------------------------------- the two that are silently wrong without


def max_pool_below_zero(x):
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x - 5.0, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


def running_maximum_below_zero(x):
    return lax.cummax(x - 5.0, 1)


IMAGES = numbers(4, 8, 8, 3)


def test_max_pool_with_explicit_padding_over_negative_numbers_is_right(path):
    check(max_pool_below_zero, path, IMAGES)


def test_cummax_of_negative_numbers_is_right(path):
    check(running_maximum_below_zero, path, numbers(4, 9))


@pytest.mark.parametrize(
    ("function", "rows"), [(max_pool_below_zero, IMAGES), (running_maximum_below_zero, numbers(4, 9))]
)
def test_without_the_rules_they_are_wrong_and_nothing_says_so(function, rows, path, monkeypatch):
    # The proof that the two tests above can fail: jax2tf's own rules pad with 0, which is more than any of the numbers.
    monkeypatch.setattr(windows, "RULES", {})
    outputs = in_onnx(function, path, rows)
    assert np.abs(outputs - np.asarray(function(rows))).max() > 0.5


# --------------------------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.int32, marks=slow), pytest.param(np.float16, marks=slow)]
)
@pytest.mark.parametrize("reduction", ["max", "min", "sum"])
@pytest.mark.parametrize(
    "window",
    [
        {"window_dimensions": (1, 3, 2, 1), "window_strides": (1, 2, 1, 1), "padding": ((0, 0), (2, 1), (0, 1), (0, 0))},
        {"window_dimensions": (1, 2, 3, 1), "window_strides": (1, 1, 1, 1), "padding": ((0, 0),) * 4, "window_dilation": (1, 2, 3, 1)},
        # Over the channels too, as many axes as no pool has, and more padding than the window is wide.
        {"window_dimensions": (1, 2, 2, 3), "window_strides": (1, 2, 2, 1), "padding": ((0, 0), (0, 0), (1, 0), (1, 1))},
        {"window_dimensions": (1, 2, 2, 1), "window_strides": (1, 1, 1, 1), "padding": ((0, 0), (2, 3), (0, 0), (0, 0))},
    ],
)  # fmt: skip
def test_windows(reduction, window, dtype, path):
    first, combine = {
        "max": (np.dtype(dtype).type(-(2**15)), lax.max),
        "min": (np.dtype(dtype).type(2**15 - 1), lax.min),
        "sum": (np.dtype(dtype).type(0), lax.add),
    }[reduction]
    rows = (numbers(3, 6, 7, 4) * 100).astype(dtype)

    def function(x):
        return lax.reduce_window(x, first, combine, **window)

    # In ONNX float16 is summed in float32, and rounded once.
    check(function, path, rows, **({"rtol": 2e-3, "atol": 1} if dtype == np.float16 else {"atol": 1e-3}))


def test_integers_keep_their_digits_in_windows(path):
    rows = np.array([[2**24 + 1, 3, 2**24 + 3, 5]], np.int32)
    check(lambda x: lax.reduce_window(x, np.int32(0), lax.add, (1, 2), (1, 1), "VALID"), path, rows, rtol=0, atol=0)


def test_a_pool_over_four_axes(path):
    check(
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 2, 2), (1, 2, 2, 2, 2), "VALID"),
        path,
        numbers(2, 4, 4, 4, 4),
    )


def test_pools_become_onnx_pools(path):
    in_onnx(max_pool_below_zero, path, IMAGES)
    assert [n.op_type for n in onnx.load(path).graph.node if "Pool" in n.op_type] == ["MaxPool"]


def test_a_window_reduction_with_a_first_value_of_its_own(path):
    @jax.jit
    def function(x):
        return lax.reduce_window(x, 2.0, lax.mul, (1, 2), (1, 1), ((0, 0), (1, 0))) + lax.reduce_window(
            x, 3.0, lax.add, (1, 2), (1, 1), ((0, 0), (1, 0))
        )

    check(function, path, numbers(3, 5))


def test_a_dilated_operand_is_refused(path):
    with pytest.raises(ExportError, match=r"reduce_window_max with base_dilation=\(1, 2\)"):
        in_onnx(
            lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2), (1, 1), "VALID", base_dilation=(1, 2)),
            path,
            numbers(2, 4),
        )


@pytest.mark.parametrize("function", [lax.cummax, lax.cummin, lax.cumprod, lax.cumsum])
@pytest.mark.parametrize("reverse", [False, pytest.param(True, marks=slow)])
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.int32, marks=slow)])
def test_running_reductions(function, reverse, dtype, path):
    rows = (numbers(3, 4, 7) * 3).astype(dtype)
    check(lambda x: function(x, axis=2, reverse=reverse), path, rows, rtol=1e-4)
    check(lambda x: function(x, axis=1, reverse=reverse), path, rows, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------- convolutions


LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NCHW"), 3: ("NCDHW", "OIDHW", "NDHWC")}


@pytest.mark.parametrize("axes", [pytest.param(1, marks=slow), 2, pytest.param(3, marks=slow)])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": (1, 2)},
        # Without strides: with them XLA 0.7.1 reads beyond the array on the CPU.
        {"padding": (-1, 2)},
        {"padding": (0, 0), "rhs_dilation": 2, "strides": 2},
        {"padding": (1, 0), "groups": 2},
        {"padding": (2, 1), "lhs_dilation": 2},
        {"padding": (0, 3), "lhs_dilation": 3},
        {"padding": (3, 4), "lhs_dilation": 2},
        {"padding": (1, 1), "lhs_dilation": 2, "groups": 2},
        {"padding": (2, 2), "lhs_dilation": 2, "rhs_dilation": 2, "strides": 2},
    ],
    ids=str,
)
def test_convolutions(axes, options, path):
    groups = options.get("groups", 1)
    lhs, rhs, _ = LAYOUTS[axes]
    sizes = {"N": 3, "C": 4, "I": 4 // groups, "O": 6, "W": 7, "H": 6, "D": 5}
    x = numbers(*(sizes[a] for a in lhs))
    kernel = numbers(*({**sizes, "W": 3, "H": 2, "D": 3}[a] for a in rhs), seed=1)

    def function(x):
        return lax.conv_general_dilated(
            x, kernel, (options.get("strides", 1),) * axes, [options["padding"]] * axes,
            lhs_dilation=(options.get("lhs_dilation", 1),) * axes, rhs_dilation=(options.get("rhs_dilation", 1),) * axes,
            dimension_numbers=LAYOUTS[axes], feature_group_count=groups,
        )  # fmt: skip

    check(function, path, x, atol=1e-4)


def test_a_convolution_of_float16_summed_in_float32(path):
    kernel = numbers(3, 4, 5, seed=1, dtype=np.float16)

    def function(x):
        return lax.conv_general_dilated(
            x, kernel, (1,), "SAME", dimension_numbers=LAYOUTS[1], preferred_element_type=jnp.float32
        )

    check(function, path, numbers(3, 7, 4, dtype=np.float16), atol=1e-3)


def test_convolutions_that_onnx_has_not_are_named(path):
    kernel = np.ones((3, 4, 6), np.int32)

    def function(x):
        return lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=LAYOUTS[1])

    with pytest.raises(
        ExportError, match="conv_general_dilated of int32 with batch_group_count=1: ONNX convolves floating-point"
    ):
        in_onnx(function, path, integers(5, 3, 7, 4))


# --------------------------------------------------------------------------------------------- sorts, gathers, scatters


@pytest.mark.parametrize(
    "dtype",
    [
        np.float32,
        np.bool_,
        np.uint32,
        *(pytest.param(d, marks=slow) for d in (np.float16, np.int32, np.uint8, np.int8)),
    ],
)
def test_sorts_of_any_dtype(dtype, path):
    rows = integers(2**32 if dtype == np.uint32 else 100, 4, 6, 5, dtype=np.int64).astype(dtype)
    check(lambda x: lax.sort(x, dimension=1), path, rows, rtol=0, atol=0)
    check(lambda x: jnp.argsort(x, axis=2, descending=True, stable=True), path, rows, rtol=0, atol=0)


def test_sorts_are_stable_and_take_several_keys(path):
    keys = integers(3, 4, 12), integers(3, 4, 12, seed=1).astype(np.float32)

    def function(a, b):
        c = jnp.broadcast_to(jnp.arange(12), a.shape)
        return jnp.concatenate([v.astype(jnp.float32) for v in lax.sort((a, b, c), dimension=1, num_keys=2)], 1)

    check(function, path, *keys, rtol=0, atol=0)


def test_gathers_with_batching_dimensions(path):
    x, i = numbers(4, 6, 5), integers(6, 4, 3)
    check(lambda x, i: jnp.take_along_axis(x, i[:, :, None], axis=1), path, x, i)
    check(jax.vmap(lambda x, i: x[i]), path, x, i)
    check(jax.vmap(lambda x, i: x[:, i]), path, x, i % 5)
    check(jax.vmap(lambda x, i: jax.vmap(lambda row: row[i])(x)), path, x, i % 5)
    check(jax.vmap(lambda x, i: jnp.take(x, i, axis=1)), path, x, integers(5, 4, 2, 3))


@pytest.mark.parametrize("mode", ["fill", "clip"])
def test_gathers_out_of_bounds(mode, path):
    x, i = numbers(4, 6), integers(20, 4, 3) - 10
    check(lambda x, i: jnp.take_along_axis(x, i, axis=1, mode=mode, fill_value=-7.0), path, x, i)


def test_gathers_along_the_batch_have_no_rows_of_their_own(path):
    table = numbers(6, 3, 4)
    check(lambda i: jnp.asarray(table)[i], path, integers(6, 4, 2))
    check(lambda i: jnp.asarray(table)[:, i].swapaxes(0, 1), path, integers(3, 4, 2))


@pytest.mark.parametrize("name", ["set", "add", "min", "max"])
def test_scatters_of_each_row(name, path):
    x, i, v = numbers(4, 6), integers(20, 4, 3) - 7, numbers(4, 3, seed=1)
    if name == "set":
        # Of several values for one place any may win.
        i = (np.arange(3) * 2 + integers(2, 4, 1) + np.array([0, 0, 9])).astype(np.int32)

    def function(x, i, v):
        return jax.vmap(lambda x, i, v: getattr(x.at[i], name)(v))(x, i, v)

    check(function, path, x, i, v)


def test_a_scatter_over_two_axes_adds_up_what_meets(path):
    def function(x, i, j):
        rows = jnp.arange(x.shape[0])[:, None]
        return jnp.zeros((x.shape[0], 3, 4)).at[rows, i, j].add(x)

    check(function, path, numbers(5, 8), integers(3, 5, 8), integers(6, 5, 8, seed=1))


def test_a_scatter_of_whole_rows(path):
    check(lambda x, v: jax.vmap(lambda x, v: x.at[1].add(v))(x, v), path, numbers(4, 3, 5), numbers(4, 5))


def test_a_scatter_of_windows(path):
    x, v, i = numbers(4, 5, 6), numbers(4, 5, 2, seed=1), integers(9, 4) - 2
    check(lambda x: jnp.asarray(x).at[:, 1:3].set(0.0), path, x)
    check(lambda x: jnp.asarray(x).at[:, 1:3, ::2].add(1.0), path, x)
    check(lambda x: jnp.asarray(x).at[..., -1].multiply(3.0), path, x)
    numbers_of = lax.ScatterDimensionNumbers((0, 1), (), (1,))

    def window(x, v, i):
        return lax.scatter_add(x, i, v, numbers_of, mode="drop")

    # Some windows are out of bounds in part, and are left out whole.
    check(lambda x, v, i: jax.vmap(window)(x, v, i[:, None]), path, x, v, i)


def test_argmax_under_vmap(path):
    check(jax.vmap(lambda x: jnp.argmax(x, 1)), path, numbers(4, 3, 5))


# ------------------------------------------------------------------------------------------------ complex, random numbers


@pytest.mark.parametrize("n", [9, pytest.param(8, marks=slow), pytest.param(15, marks=slow)])
def test_fourier_transforms(n, path):
    x = numbers(3, n)
    check(lambda x: jnp.fft.rfft(x).imag, path, x, atol=1e-4)
    check(lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * 2, x.shape[1]), path, x, atol=1e-4)
    check(lambda x: jnp.abs(jnp.fft.fft(x) + jnp.fft.ifft(x)), path, x, atol=1e-4)


def test_fourier_transforms_of_images(path):
    x, w = numbers(3, 6, 5), numbers(6, 3, seed=1) + 1j * numbers(6, 3, seed=2)
    check(lambda x: jnp.fft.irfft2(jnp.fft.rfft2(x) * w, (6, 5)), path, x, atol=1e-4)
    check(lambda x: jnp.abs(jnp.fft.fft2(x)) + jnp.real(jnp.conj(jnp.fft.ifft2(-x))), path, x, atol=1e-4)


def test_transforms_that_are_too_long_are_refused(path):
    with pytest.raises(ExportError, match=r"fft of lengths \(4096,\); up to 2048 can be converted"):
        in_onnx(lambda x: jnp.abs(jnp.fft.rfft(x)), path, numbers(1, 4096))


@pytest.mark.parametrize(
    "sample",
    [
        pytest.param(jax.random.normal, marks=slow),
        jax.random.uniform,
        pytest.param(functools.partial(jax.random.bits, dtype=jnp.uint32), marks=slow),
    ],
)
def test_random_numbers_of_keys_per_row(sample, path):
    keys = integers(2**32, 4, 2, dtype=np.uint32)
    check(jax.vmap(lambda key: sample(key, (7,))), path, keys)


def test_random_numbers_for_a_whole_batch_are_refused(path):
    with pytest.raises(
        ExportError, match="random numbers for a whole batch: a row's would depend on the rows beside it"
    ):
        in_onnx(lambda x: x + jax.random.normal(jax.random.key(0), x.shape), path, numbers(2, 3))


def test_bits_taken_for_floats(path):
    floats = np.array(
        [0, -0.0, 1, -1.5, 1e-45, -3e-39, 1.17549435e-38, 3.4e38, np.inf, -np.inf, 2**-126, 1e-10], np.float32
    )
    outputs = in_onnx(lambda x: lax.bitcast_convert_type(x, jnp.float32), path, floats.view(np.uint32)[:, None])
    # ONNX Runtime may flush what is below the normal numbers to 0.
    np.testing.assert_allclose(outputs[:, 0], floats, rtol=0, atol=1.2e-38)
    with pytest.raises(ExportError, match="bitcast_convert_type from float32 to int32"):
        in_onnx(lambda x: lax.bitcast_convert_type(x, jnp.int32), path, floats[:, None])


def test_unsigned_integers_overflow_as_they_do(path):
    a, b = (integers(2**32, 5, 3, seed=s, dtype=np.uint32) for s in (1, 2))
    check(lambda a, b: (a * b + a) ^ (b - a), path, a, b, rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float16", "int8", "int32", "int64", "float64"])
def test_inputs_of_any_dtype_keep_it_in_the_file(dtype, path):
    rows = integers(2, 4, 3).astype(dtype)
    outputs = in_onnx(lambda x: x.astype(jnp.float32) * 2, path, rows)
    np.testing.assert_array_equal(outputs, rows.astype(np.float32) * 2)
    spec = onnx.load(path).graph.input[0].type.tensor_type
    assert onnx.helper.tensor_dtype_to_np_dtype(spec.elem_type) == np.dtype(dtype)
    assert not jax.config.jax_enable_x64


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "uint16", "uint32"])
def test_floats_outside_of_an_integers_range_become_its_limits(dtype, path):
    info = np.iinfo(dtype)
    edges = [info.min - 1.5, info.min - 0.5, info.min, info.max, info.max + 0.5, info.max + 1.0, -1e12, 1e12]
    rows = np.array([[-1.5, -0.5, 0.5, 1.5, np.nan, np.inf, -np.inf, 100.7, *edges]], np.float32)
    check(lambda x: x.astype(dtype).astype("float32"), path, np.concatenate([rows, rows[:, ::-1]]), atol=0, rtol=0)


def test_wide_numbers_stay_wide_where_the_user_has_them(path):
    with jax.experimental.enable_x64():
        outputs = in_onnx(lambda x: x / 3, path, numbers(4, 3, dtype=np.float64))
        assert outputs.dtype == np.float64
        np.testing.assert_allclose(outputs, numbers(4, 3, dtype=np.float64) / 3, rtol=1e-15)


def test_the_batch_axis_of_several_inputs(path):
    inputs = [TensorSpec("tokens", "int32", (None, 7)), TensorSpec("image", "float32", (None, 5, 4))]

    def function(tokens, image):
        return jnp.asarray(numbers(9, 4))[tokens].mean(1) + image.sum(1)

    spec = write_onnx(function, inputs, path, opset=18, model_name="the net")
    assert spec == TensorSpec("output", "float32", (None, 4))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    tokens, image = integers(9, 3, 7), numbers(3, 5, 4)
    outputs = session.run(None, {"tokens": tokens, "image": image})[0]
    np.testing.assert_allclose(outputs, function(tokens, image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("least", [1_000, 10**9])
def test_weights_above_the_limit_go_to_a_file_beside_the_model(least, path, monkeypatch):
    # With constants as arguments of the graph, and in it.
    monkeypatch.setattr(tensorflow_export, "EXTERNAL_DATA_BYTES", 100_000)
    monkeypatch.setattr(weights, "SET_ASIDE_BYTES", 1_000)
    monkeypatch.setattr(large_weights, "SMALL_BYTES", least)
    first, second, kernel = numbers(6, 300, seed=1), jnp.asarray(numbers(300, 200, seed=2)), numbers(3, 2, 200, seed=3)

    def net(x):
        x = (jax.jit(lambda x: jnp.tanh(x @ first))(x) @ second).reshape(x.shape[0], 100, 2)
        return lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")).mean(1)

    check(net, path, numbers(4, 6), atol=1e-4)
    assert path.stat().st_size < 15_000
    assert path.with_name("model.onnx.data").stat().st_size >= 4 * (300 * 206 + 6 * 200)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x.shape[0] > 2 else x * 2,
        lambda x: jnp.stack([x[i] for i in range(x.shape[0])]),
        lambda x: x * int(x.shape[0]),
        lambda x: x + np.zeros(x.shape, np.float32),
        lambda x: x.reshape(2, -1, 3).reshape(-1, 3),
    ],
)
def test_code_that_asks_for_the_batch_size_is_refused_in_plain_words(function, path):
    message = (
        r"the net: its code asks how many rows there are \(.*\), and the ONNX file is for batches of any size. Sizes of"
    )
    with pytest.raises(ExportError, match=message):
        in_onnx(function, path, numbers(4, 3))
    assert not path.exists()


def test_what_the_functions_code_raises_is_said(path):
    with pytest.raises(
        ExportError, match=r"jax2tf cannot convert the net: TypeError: dot_general requires contracting"
    ):
        in_onnx(lambda x: x @ np.ones((5, 3), np.float32), path, numbers(4, 3))


def test_a_function_of_one_sample_is_told_apart(path):
    with pytest.raises(
        ExportError, match=r"the net returns an array of shape \(3,\) for every batch size; \(n, classes\)"
    ):
        in_onnx(lambda x: x.sum(0), path, numbers(4, 3))


# ---------------------------------------------------------------------------------------------- nothing is left behind


def test_the_rules_of_jax2tf_are_put_back_also_after_an_error(path):
    before = dict(jax2tf.tf_impl_no_xla)
    seen = []

    def function(x):
        seen.append(jax2tf.tf_impl_no_xla[lax.conv_general_dilated_p])
        return x

    in_onnx(function, path, numbers(2, 3))
    assert seen[-1] is not before[lax.conv_general_dilated_p]
    assert jax2tf.tf_impl_no_xla == before
    with pytest.raises(ExportError):
        in_onnx(lambda x: x.sum(), path, numbers(2, 3))
    assert jax2tf.tf_impl_no_xla == before


def test_a_jax2tf_that_keeps_its_rules_elsewhere_is_refused(path, monkeypatch):
    monkeypatch.delattr(jax2tf, "_eval_shape")
    message = f"replaces rules of jax2tf as jax {patches.WRITTEN_FOR} has them, and jax {jax.__version__} is installed, which keeps"
    with pytest.raises(PluginError, match=message):
        in_onnx(lambda x: x, path, numbers(2, 3))


def test_threads_convert_one_after_another(tmp_path):
    outputs = {}

    def convert(i):
        outputs[i] = in_onnx(lambda x: lax.cummax(x * i, 1), tmp_path / f"{i}.onnx", numbers(4, 3))

    threads = [threading.Thread(target=convert, args=(i,)) for i in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in (1, 2, 3):
        np.testing.assert_allclose(outputs[i], lax.cummax(numbers(4, 3) * i, 1), rtol=1e-6)


def test_without_tensorflow_the_command_that_installs_it_is_named(tmp_path):
    code = (
        "import sys; sys.modules['tensorflow'] = None\n"
        "from pathlib import Path; from fo_onnx.contracts.spec import TensorSpec; from fo_onnx_jax.jax2tf.export import write_onnx\n"
        "write_onnx(lambda x: x, [TensorSpec('x', 'float32', (None, 3))], Path('m.onnx'), opset=18, model_name='net')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last.endswith(
        "exporting JAX functions takes TensorFlow and tf2onnx, and tensorflow is missing; pip install 'fo-onnx[jax]'."
    )
    assert last.startswith("fo_onnx.errors.PluginError")
