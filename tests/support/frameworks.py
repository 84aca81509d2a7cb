"""The same linear classifier, and the same data, in each framework, for the guide's modules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from data_generator_models import K, W, b, labels, x


@dataclass(frozen=True)
class Framework:
    """One of the guide's modules with what a test needs.

    Attributes:
        module: The module.
        model: The classifier, giving logits.
        data: Samples with labels.
        evaluating: The generator that is made with its dataset.
        is_row: Whether a value is a row of the framework.
        softmax: The framework's, of a raw output.
    """

    module: ModuleType
    model: Any
    data: Any
    evaluating: Any
    is_row: Callable[[Any], bool]
    softmax: Callable[[Any], Any]


def of_torch() -> Framework:
    import torch

    from fo_onnx.data_generator import torch_first_order_generator as module

    net = torch.nn.Linear(len(W), K)
    with torch.no_grad():
        net.weight.copy_(torch.tensor(W.T))
        net.bias.copy_(torch.tensor(b))
    data = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(labels))
    return Framework(module, net, data, module.PyTorchDataGenerator, torch.is_tensor, lambda z: torch.softmax(z, -1))


def of_jax() -> Framework:
    import jax
    import jax.numpy as jnp

    from fo_onnx.data_generator import jax_first_order_generator as module

    weights, bias = jnp.array(W), jnp.array(b)
    data = [(jnp.array(row), int(label)) for row, label in zip(x, labels, strict=True)]
    return Framework(
        module,
        lambda x: x @ weights + bias,
        data,
        module.JAXDataGenerator,
        lambda v: isinstance(v, jax.Array),
        jax.nn.softmax,
    )


def of_tensorflow() -> Framework:
    import tensorflow as tf

    from fo_onnx.data_generator import tensorflow_generator as module

    model = tf.keras.Sequential([tf.keras.Input((len(W),)), tf.keras.layers.Dense(K)])
    model.layers[-1].set_weights([W, b])
    data = tf.data.Dataset.from_tensor_slices((x, labels)).batch(16)
    return Framework(module, model, data, module.TensorFlowDataGenerator, tf.is_tensor, tf.nn.softmax)


def of_none() -> Framework:
    from fo_onnx.data_generator import first_order_datagenerator as module

    def softmax(z: Any) -> Any:
        return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)

    return Framework(
        module, lambda inputs: inputs @ W + b, list(zip(x, labels.tolist(), strict=True)), module.DataGenerator,
        lambda v: isinstance(v, np.ndarray), softmax,
    )  # fmt: skip


FRAMEWORKS: dict[str, Callable[[], Framework]] = {
    "torch": of_torch, "jax": of_jax, "tensorflow": of_tensorflow, "agnostic": of_none,
}  # fmt: skip
