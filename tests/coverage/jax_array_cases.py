"""JAX cases: operations on arrays, control flow, random numbers, linear algebra, kinds of inputs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax_classifiers import Made, both, case, integers, normal, weights

ROW = normal(9)
TOKENS = integers(50, 6)


def _embedding() -> np.ndarray:
    return weights(50, 16)


@case("while_loop")
def _loop_of_a_fixed_length() -> Made:
    return lambda x: lax.fori_loop(0, 5, lambda _, a: a * 0.5 + 1, x), normal(8)


@case("while_data")
def _loop_until_the_data_says_so() -> Made:
    # Per row, by vmap: a loop on the whole batch would make rows depend on those beside them, which no classifier does.
    def one(x: Any) -> Any:
        return lax.while_loop(lambda a: jnp.abs(a).max() > 0.1, lambda a: a * 0.5, x)

    return jax.vmap(one), normal(8)


@case("cond")
def _condition() -> Made:
    # Per row likewise; vmap makes a selection of it.
    return jax.vmap(lambda x: lax.cond(x.sum() > 0, lambda a: a * 2, lambda a: a - 1, x)), normal(8)


@case("sort")
def _sort() -> Made:
    return lambda x: jnp.sort(x, -1), ROW


@case("argsort")
def _argsort() -> Made:
    return lambda x: jnp.argsort(x, -1), ROW


@case("argmax")
def _argmax() -> Made:
    return lambda x: jnp.argmax(x, -1), ROW


@case("top_k")
def _top_k() -> Made:
    return lambda x: lax.top_k(x, 3), ROW


@case("one_hot")
def _one_hot() -> Made:
    w = weights(7, 4)
    return lambda i: jax.nn.one_hot(i, 7) @ w, integers(7)


@case("take")
def _take() -> Made:
    table = _embedding()
    return lambda i: jnp.take(table, i, axis=0), TOKENS


@case("take_along")
def _take_along_axis() -> Made:
    return lambda x: jnp.take_along_axis(x, jnp.argsort(x, -1)[:, :2], -1), ROW


@case("embed_index")
def _embedding_by_index() -> Made:
    table, w = _embedding(), weights(16, 10)
    return lambda i: jnp.asarray(table)[i].mean(1) @ w, TOKENS


@case("embed_i64np")
def _embedding_of_int64() -> Made:
    table = _embedding()
    return lambda i: jnp.asarray(table)[i].mean(1), integers(50, 6, dtype=np.int64)


@case("linen_embed")
def _linen_embedding() -> Made:
    import flax.linen as nn

    net = nn.Embed(50, 16)
    variables = net.init(jax.random.key(0), np.zeros((1, 6), np.int32))
    return lambda x: net.apply(variables, x), TOKENS


@case("int_x64free_tokens_mask")
def _mean_of_embeddings_but_the_padding() -> Made:
    table = _embedding()

    def program(i: Any) -> Any:
        real = i != 0
        return (jnp.asarray(table)[i] * real[..., None]).sum(1) / jnp.maximum(real.sum(1, keepdims=True), 1)

    return program, TOKENS


@case("scatter_set")
def _scatter_set() -> Made:
    return lambda x: jnp.asarray(x).at[:, 2].set(1.0), ROW


@case("scatter_add")
def _scatter_add() -> Made:
    def program(x: Any, i: Any) -> Any:
        return jnp.zeros((x.shape[0], 5)).at[jnp.arange(x.shape[0]), i].add(x[:, 0])

    return program, both(ROW, integers(5))


@case("dyn_slice")
def _dynamic_slice() -> Made:
    return lambda x: lax.dynamic_slice_in_dim(x, 2, 3, 1), ROW


@case("static_slice")
def _static_slice() -> Made:
    return lambda x: x[:, 0] + x[:, -1], normal(9, 4)


@case("cls_tok_concat")
def _class_token() -> Made:
    token = weights(1, 1, 4)
    return lambda x: jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, 4)), x], 1), normal(9, 4)


@case("cumsum")
def _cumsum() -> Made:
    return lambda x: jnp.cumsum(x, 1), ROW


@case("cumprod")
def _cumprod() -> Made:
    return lambda x: jnp.cumprod(x, 1), ROW


@case("cummax")
def _cummax() -> Made:
    return lambda x: lax.cummax(x, 1), ROW


@case("assoc_scan")
def _associative_scan() -> Made:
    return lambda x: lax.associative_scan(jnp.add, x, axis=1), ROW


@case("einsum")
def _einsum() -> Made:
    w = weights(4, 8, 16)
    return lambda x: jnp.einsum("btd,hdk->bhtk", x, w), normal(5, 8)


@case("einsum_bmm")
def _einsum_of_batches() -> Made:
    return lambda x: jnp.einsum("bqd,bkd->bqk", x, x), normal(5, 8)


@case("multi_in")
def _several_inputs() -> Made:
    w = weights(32, 10)
    return lambda x, y: jnp.tanh(x @ w) + y, both(normal(32), normal(10, seed=4))


@case("dict_in")
def _dict() -> Made:
    w = weights(32, 10)

    def rows(n: int) -> dict[str, np.ndarray]:
        return {"image": normal(32)(n)[0], "age": normal(10, seed=4)(n)[0]}

    return lambda d: {"p": jax.nn.softmax(d["image"] @ w), "q": d["age"] * 2}, rows


@case("uint8_in")
def _uint8() -> Made:
    return lambda x: x.astype(jnp.float32) / 255.0, integers(255, 6, dtype=np.uint8)


@case("bool_in")
def _bool() -> Made:
    return lambda x: jnp.where(x, 1.0, -1.0), integers(2, 6, dtype=np.bool_)


@case("erf_gelu")
def _exact_gelu() -> Made:
    return lambda x: jax.nn.gelu(x, approximate=False), ROW


@case("gelu_tanh")
def _gelu_by_tanh() -> Made:
    return lambda x: jax.nn.gelu(x), ROW


@case("acts")
def _activations() -> Made:
    n = jax.nn
    activations = (n.silu, n.softplus, n.elu, n.leaky_relu, n.hard_swish, n.log_softmax, n.mish)
    return lambda x: sum(activation(x) for activation in activations), ROW


@case("math")
def _elementwise() -> Made:
    def program(x: Any) -> Any:
        positive = jnp.log1p(jnp.abs(x)) + lax.rsqrt(jnp.abs(x) + 1) + jnp.power(jnp.abs(x), 1.5)
        steps = jnp.floor(x) + jnp.round(x) + jnp.sign(x) + jnp.clip(x, -1, 1) + jnp.where(x > 0, x, 0)
        return positive + steps + jnp.expm1(x) + jnp.sin(x)

    return program, ROW


@case("erfinv_lgamma")
def _special_functions() -> Made:
    return lambda x: lax.erf_inv(jnp.tanh(x) * 0.9) + lax.lgamma(jnp.abs(x) + 1), ROW


@case("norm_std")
def _standardised() -> Made:
    return lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5), ROW


@case("logsumexp")
def _logsumexp() -> Made:
    return lambda x: jax.nn.logsumexp(x, -1), ROW


@case("resize")
def _resize() -> Made:
    return lambda x: jax.image.resize(x, (x.shape[0], 16, 16, 3), "bilinear"), normal(8, 8, 3)


@case("pad_rev")
def _padded_and_reversed() -> Made:
    return lambda x: jnp.pad(x, ((0, 0), (1, 2)))[:, ::-1], ROW


@case("random_const_key")
def _noise_of_a_fixed_key() -> Made:
    return lambda x: x + jax.random.normal(jax.random.PRNGKey(0), (9,)), ROW


@case("dropout_rng")
def _dropout_of_a_fixed_key() -> Made:
    # One mask for all rows: one for the whole batch would make a row depend on its place in it.
    def program(x: Any) -> Any:
        return jnp.where(jax.random.bernoulli(jax.random.PRNGKey(0), 0.9, x.shape[1:]), x / 0.9, 0)

    return program, ROW


@case("dropout_rng_input_key")
def _dropout_of_a_key_per_row() -> Made:
    # A key without a batch axis is no input of a classifier, so each row brings its own.
    def one(x: Any, seeds: Any) -> Any:
        return jnp.where(jax.random.bernoulli(seeds, 0.9, (9,)), x / 0.9, 0)

    return jax.vmap(one), both(ROW, integers(2**32, 2, dtype=np.uint32))


@case("custom_jvp")
def _function_with_its_own_derivative() -> Made:
    @jax.custom_jvp
    def program(x: Any) -> Any:
        return jnp.sin(x)

    program.defjvp(lambda primals, tangents: (program(primals[0]), jnp.cos(primals[0]) * tangents[0]))
    return program, ROW


@case("checkpoint")
def _rematerialised() -> Made:
    w = weights(32, 10)
    return jax.checkpoint(lambda x: jnp.sin(x @ w)), normal(32)


@case("pure_callback")
def _python_callback() -> Made:
    def program(x: Any) -> Any:
        return jax.pure_callback(lambda a: np.asarray(a) * 2, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    return program, ROW


@case("linalg_chol")
def _cholesky() -> Made:
    return lambda x: jnp.linalg.cholesky(jnp.einsum("bij,bkj->bik", x, x) + jnp.eye(4)), normal(4, 4)


@case("fft")
def _spectrum() -> Made:
    return lambda x: jnp.abs(jnp.fft.rfft(x)), normal(16)
