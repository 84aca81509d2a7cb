"""JAX cases: whole models of flax, equinox and haiku, transformations, convolutions, pools, recurrences, attention."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax_classifiers import Made, case, normal, weights

KEY = jax.random.key(0)
IMAGE = (16, 16, 3)


@case("plain")
def _plain() -> Made:
    w = weights(32, 10)
    return lambda x: jax.nn.softmax(jnp.tanh(x @ w) * 2 + 1, -1), normal(32)


@case("jit")
def _jit() -> Made:
    w = weights(32, 10)
    return jax.jit(lambda x: jax.nn.relu(x @ w)), normal(32)


@case("vmap")
def _vmap() -> Made:
    w = weights(32, 10)
    return jax.vmap(lambda x: jax.nn.softmax(x @ w)), normal(32)


@case("vmap_conv")
def _vmap_conv() -> Made:
    k = weights(8, 3, 3, 3, scale=0.1)
    numbers = ("NCHW", "OIHW", "NCHW")

    def one(x: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(x[None], k, (1, 1), "SAME", dimension_numbers=numbers)[0].mean((1, 2))

    return jax.vmap(one), normal(3, 16, 16)


@case("linen_cnn_attn")
def _linen_cnn_attn() -> Made:
    import flax.linen as nn

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(8, (3, 3))(x)))
            x = nn.avg_pool(nn.max_pool(x, (2, 2), (2, 2)), (2, 2), (2, 2))
            x = nn.LayerNorm()(x.reshape(x.shape[0], -1, 8))
            x = nn.MultiHeadDotProductAttention(num_heads=2)(x, x)
            return nn.Dense(10)(nn.gelu(x.mean(1)))

    net = Net()
    variables = net.init(KEY, np.zeros((1, *IMAGE), np.float32))
    return lambda x: net.apply(variables, x), normal(*IMAGE)


@case("nnx")
def _nnx() -> Made:
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.drop = nnx.Dropout(0.1, rngs=rngs)
            self.head = nnx.Linear(8, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = nnx.max_pool(nnx.relu(self.norm(self.conv(x))), (2, 2), (2, 2))
            return self.head(self.drop(x.mean((1, 2))))

    net = Net(nnx.Rngs(0))
    net.eval()
    return lambda x: net(x), normal(*IMAGE)


@case("nnx_split_merge")
def _nnx_split_merge() -> Made:
    from flax import nnx

    net = nnx.Sequential(nnx.Linear(32, 64, rngs=nnx.Rngs(0)), nnx.gelu, nnx.Linear(64, 10, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(net)
    return lambda x: nnx.merge(graph, state)(x), normal(32)


@case("nnx_mha")
def _nnx_mha() -> Made:
    from flax import nnx

    net = nnx.MultiHeadAttention(num_heads=2, in_features=16, decode=False, rngs=nnx.Rngs(0))
    net.eval()
    return lambda x: net(x), normal(7, 16)


@case("equinox_vmap")
def _equinox_vmap() -> Made:
    import equinox as eqx

    class Net(eqx.Module):
        conv: Any
        pool: Any
        norm: Any
        head: Any

        def __init__(self) -> None:
            self.conv, self.pool = eqx.nn.Conv2d(3, 8, 3, key=KEY), eqx.nn.MaxPool2d(2, 2)
            self.norm, self.head = eqx.nn.LayerNorm(8), eqx.nn.Linear(8, 10, key=KEY)

        def __call__(self, x: Any) -> Any:
            return self.head(self.norm(jax.nn.relu(self.pool(self.conv(x))).mean((1, 2))))

    return jax.vmap(Net()), normal(3, 16, 16)


@case("equinox_mlp")
def _equinox_mlp() -> Made:
    import equinox as eqx

    return jax.vmap(eqx.nn.MLP(32, 10, 64, 2, key=KEY)), normal(32)


@case("equinox_conv_bn_pool_mha")
def _equinox_mha() -> Made:
    import equinox as eqx

    attention = eqx.nn.MultiheadAttention(2, 16, key=KEY)
    return jax.vmap(lambda x: attention(x, x, x)), normal(7, 16)


@case("eqx_avgpool_gap")
def _equinox_average_pool() -> Made:
    import equinox as eqx

    pool = eqx.nn.AdaptiveAvgPool2d((1, 1))
    return jax.vmap(lambda x: pool(x)), normal(3, 8, 8)


@case("haiku")
def _haiku() -> Made:
    import haiku as hk

    def net(x: Any) -> Any:
        x = hk.BatchNorm(True, True, 0.9)(hk.Conv2D(8, 3)(x), is_training=hk.running_init())
        x = hk.max_pool(jax.nn.relu(x), (2, 2, 1), (2, 2, 1), "SAME")
        return hk.Linear(10)(x.mean((1, 2)))

    transformed = hk.without_apply_rng(hk.transform_with_state(net))
    params, state = transformed.init(jax.random.PRNGKey(0), np.zeros((1, *IMAGE), np.float32))
    return lambda x: transformed.apply(params, state, x)[0], normal(*IMAGE)


@case("scan_gru")
def _scan_gru() -> Made:
    update, reset, new = (weights(24, 16, scale=0.2, seed=s) for s in (3, 4, 5))

    def cell(h: Any, x: Any) -> Any:
        both = jnp.concatenate([h, x], -1)
        z, r = jax.nn.sigmoid(both @ update), jax.nn.sigmoid(both @ reset)
        n = jnp.tanh(jnp.concatenate([r * h, x], -1) @ new)
        h = (1 - z) * h + z * n
        return h, h

    def program(x: Any) -> Any:
        h, every = lax.scan(cell, jnp.zeros((x.shape[0], 16), x.dtype), jnp.swapaxes(x, 0, 1))
        return h, jnp.swapaxes(every, 0, 1)

    return program, normal(12, 8)


@case("scan_gru_unroll")
def _scan_gru_unroll() -> Made:
    update, new = (weights(24, 16, scale=0.2, seed=s) for s in (3, 5))

    def cell(h: Any, x: Any) -> Any:
        both = jnp.concatenate([h, x], -1)
        z = jax.nn.sigmoid(both @ update)
        return (1 - z) * h + z * jnp.tanh(both @ new), None

    def program(x: Any) -> Any:
        return lax.scan(cell, jnp.zeros((x.shape[0], 16), x.dtype), jnp.swapaxes(x, 0, 1), unroll=12)[0]

    return program, normal(12, 8)


@case("linen_gru")
def _linen_gru() -> Made:
    import flax.linen as nn

    net = nn.RNN(nn.GRUCell(features=16))
    variables = net.init(KEY, np.zeros((1, 12, 8), np.float32))
    return lambda x: net.apply(variables, x), normal(12, 8)


@case("eqx_gru_scan")
def _equinox_gru_scan() -> Made:
    import equinox as eqx

    cell = eqx.nn.GRUCell(8, 16, key=KEY)

    def one(x: Any) -> Any:
        return lax.scan(lambda h, step: (cell(step, h), None), jnp.zeros(16), x)[0]

    return jax.vmap(one), normal(7, 8)


NHWC = ("NHWC", "HWIO", "NHWC")


def _convolution(
    name: str, kernel: tuple[int, ...], *, row: tuple[int, ...] = (12, 12, 8), strides: tuple[int, ...] = (1, 1),
    padding: Any = "SAME", numbers: tuple[str, str, str] = NHWC, **options: Any,
) -> None:  # fmt: skip
    @case(name)
    def make() -> Made:
        k = weights(*kernel, scale=0.1)
        return (
            lambda x: lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=numbers, **options),
            normal(*row),
        )


_convolution("conv_same", (3, 3, 8, 16))
_convolution("conv_s2_valid", (3, 3, 8, 16), padding="VALID", strides=(2, 2))
_convolution("conv_expl_pad", (3, 3, 8, 16), padding=((2, 1), (0, 3)))
_convolution("conv_grouped", (3, 3, 2, 16), feature_group_count=4)
_convolution("conv_depthwise", (3, 3, 1, 8), feature_group_count=8)
_convolution("conv_depthwise_x2_s2", (3, 3, 1, 16), feature_group_count=8, strides=(2, 2))
_convolution("conv_dilated", (3, 3, 8, 16), rhs_dilation=(2, 2))
_convolution("conv_dw_dilated", (3, 3, 1, 8), feature_group_count=8, rhs_dilation=(2, 2))
_convolution("conv_lhs_dil", (3, 3, 8, 16), lhs_dilation=(2, 2), padding=((1, 2), (1, 2)))
_convolution("conv_nchw", (16, 8, 3, 3), row=(8, 12, 12), numbers=("NCHW", "OIHW", "NCHW"))
_convolution("conv1d", (3, 8, 16), row=(12, 8), strides=(1,), numbers=("NWC", "WIO", "NWC"))
_convolution("conv3d", (3, 3, 3, 2, 4), row=(6, 6, 6, 2), strides=(1, 1, 1), numbers=("NDHWC", "DHWIO", "NDHWC"))


@case("f16_in_conv", tolerance=1e-3)
def _float16_convolution() -> Made:
    k = weights(3, 3, 3, 8).astype(np.float16)
    return (
        lambda x: lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=NHWC),
        normal(8, 8, 3, dtype=np.float16),
    )


@case("conv_transpose")
def _transposed_convolution() -> Made:
    k = weights(3, 3, 8, 16, scale=0.1)
    return lambda x: lax.conv_transpose(x, k, (2, 2), "SAME"), normal(8, 8, 8)


@case("linen_convtranspose")
def _linen_transposed_convolution() -> Made:
    import flax.linen as nn

    net = nn.ConvTranspose(4, (3, 3), (2, 2))
    variables = net.init(KEY, np.zeros((1, 8, 8, 8), np.float32))
    return lambda x: net.apply(variables, x), normal(8, 8, 8)


@case("grouped_linen")
def _linen_grouped_convolution() -> Made:
    import flax.linen as nn

    net = nn.Conv(16, (3, 3), feature_group_count=4)
    variables = net.init(KEY, np.zeros((1, 8, 8, 8), np.float32))
    return lambda x: net.apply(variables, x), normal(8, 8, 8)


@case("reduce_window_avg")
def _average_pool() -> Made:
    return lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "SAME") / 4, normal(9, 9, 3)


@case("maxpool_expl_neg")
def _max_pool_with_padding_below_zero() -> Made:
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return (
        lambda x: lax.reduce_window(x - 5.0, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding),
        normal(8, 8, 3),
    )


@case("maxpool_same_neg")
def _max_pool_same_below_zero() -> Made:
    return lambda x: lax.reduce_window(x - 5.0, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"), normal(9, 9, 3)


@case("avgpool_same_count")
def _average_pool_without_padding_in_the_count() -> Made:
    import flax.linen as nn

    return lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False), normal(9, 9, 3)


@case("dot_product_attention")
def _attention() -> Made:
    return lambda x: jax.nn.dot_product_attention(x, x, x), normal(5, 2, 8)


@case("f16", tolerance=1e-3)
def _float16() -> Made:
    w = weights(32, 10)
    return lambda x: (x.astype(jnp.float16) @ jnp.asarray(w, jnp.float16)).astype(jnp.float32), normal(32)


# bfloat16 runs in float32 in ONNX, so these two are as far from JAX as JAX is from what it would calculate exactly.
@case("bf16", tolerance=1e-2)
def _bfloat16() -> Made:
    w = weights(32, 10)
    return lambda x: (x.astype(jnp.bfloat16) @ jnp.asarray(w, jnp.bfloat16)).astype(jnp.float32), normal(32)


@case("bf16_linen", tolerance=1e-2)
def _linen_bfloat16() -> Made:
    import flax.linen as nn

    half = jnp.bfloat16
    net = nn.Sequential([nn.Dense(16, dtype=half), nn.LayerNorm(dtype=half), nn.relu, nn.Dense(4, dtype=half)])
    variables = net.init(KEY, np.zeros((1, 32), np.float32))
    return lambda x: net.apply(variables, x).astype(jnp.float32), normal(32)
