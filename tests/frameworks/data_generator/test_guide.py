"""Every block of code of the multi-framework guide runs, with small models and data where it has placeholders.

What is changed in a block beside the package's name stands in `CHANGED`: the CPU where a device is named that is not here,
the opt-in where torch loads a pickle, and what a placeholder leaves open.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_generator_models import ROWS, K, W, b, labels, truth, x

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
tf = pytest.importorskip("tensorflow")
import jax.numpy as jnp  # noqa: E402
from guide_blocks import BLOCKS  # noqa: E402

from fo_onnx.data_generator import (  # noqa: E402
    jax_first_order_generator,
    tensorflow_generator,
    torch_first_order_generator,
)

GPU, GPU_1, JAX_GPU = ("'cuda'", "'cpu'"), ("'cuda:1'", "'cpu'"), ("'gpu'", "'cpu'")
PICKLE = (".pt')", ".pt', weights_only=False)")
CHANGED: dict[str, tuple[tuple[str, str], ...]] = {
    "factory": (GPU,),
    "torch_quick_start": (PICKLE,),
    "torch_devices": (GPU, GPU_1),
    "jax_quick_start": (JAX_GPU,),
    "jax_devices": (JAX_GPU, ("'gpu:1'", "'cpu'"), ("'tpu'", "'cpu'")),
    "jax_jit": (JAX_GPU,),
    "jax_vmap": (JAX_GPU,),
    "jax_best_practices": (JAX_GPU,),
    "tensorflow_quick_start": (("'GPU:0'", "'CPU:0'"),),
    "agnostic_quick_start": (
        ("return predictions", "return inputs @ W + b"),
        ("class MyDataset:\n", "class MyDataset:\n    data, labels = x, y\n"),
    ),
    "torch_to_jax": (PICKLE, GPU, JAX_GPU),
    "datasets_of_both": (
        ("Dataset):\n", "Dataset):\n    data, labels = torch.tensor(x), y\n"),
        ("class JAXDataset:\n", "class JAXDataset:\n    data, labels = x, y\n"),
    ),
}
NOT_WITHOUT = {
    "torch_best_practices": "asks for the memory of a CUDA device",
    "tensorflow_tpu": "connects to a TPU",
}
"""Blocks that no machine without the accelerator can run, and why."""


class Net(torch.nn.Module):
    """A linear classifier with Bayesian parameters beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(len(W), K)
        self.linear.weight_mu = torch.nn.Parameter(torch.zeros(2))
        self.linear.weight_rho = torch.nn.Parameter(torch.full((2,), -3.0))
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor(W.T))
            self.linear.bias.copy_(torch.tensor(b))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def keras_model() -> Any:
    model = tf.keras.Sequential([tf.keras.Input((len(W),)), tf.keras.layers.Dense(K)])
    model.layers[-1].set_weights([W, b])
    return model


def torch_names(folder: Path) -> dict[str, Any]:
    net, data = Net(), torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(labels))
    for name in ("pretrained_model.pt", "model.pt"):
        torch.save(net, folder / name)
    module = torch_first_order_generator
    generator = module.FirstOrderDataGenerator(net)
    return {
        "torch": torch, "model": net, "torch_model": net, "dataset": data, "torch_dataset": data, "device": "cpu",
        "optimizer": torch.optim.SGD(net.parameters(), lr=0.01), "generator": generator,
        "distributions": generator.generate_distributions(data), "output_dataloader": module.output_dataloader,
        "FirstOrderDataGenerator": module.FirstOrderDataGenerator, "torch_tensor": torch.tensor(x),
    }  # fmt: skip


def jax_names(folder: Path) -> dict[str, Any]:
    params = {"W": jnp.array(W), "b": jnp.array(b)}

    def model_fn(x: Any, static_params: bool = False) -> Any:
        return x @ params["W"] + params["b"]

    data = [(jnp.array(row), int(label)) for row, label in zip(x, labels, strict=True)]
    module = jax_first_order_generator
    return {
        "jax": jax, "jnp": jnp, "params": params, "jax_dataset": data, "dataset": data, "model_fn": model_fn, "model": model_fn,
        "forward_pass": lambda x, params: x @ params["W"] + params["b"], "jax_model": model_fn,
        "jax_forward_pass": lambda x, params: x @ params["W"] + params["b"], "converted_params": params,
        "generator": module.FirstOrderDataGenerator(model_fn), "FirstOrderDataGenerator": module.FirstOrderDataGenerator,
        "images": x, "labels": labels, "features": x[:, :2], "metadata": labels, "batch_size": 2, "x": jnp.array(x),
    }  # fmt: skip


def tensorflow_names(folder: Path) -> dict[str, Any]:
    keras_model().save(folder / "pretrained_model.h5")
    return {
        "tf": tf, "model": keras_model(), "create_model": keras_model, "x": x, "y": labels, "images": x, "labels": labels,
        "batch_size": 16, "preprocess_fn": lambda x, y: (x * 1.0, y),
        "dataset": tf.data.Dataset.from_tensor_slices((x, labels)).batch(16),
        "TensorFlowDataGenerator": tensorflow_generator.TensorFlowDataGenerator,
    }  # fmt: skip


def all_names(folder: Path) -> dict[str, Any]:
    return tensorflow_names(folder) | jax_names(folder) | torch_names(folder) | {"np": np}


def agnostic_names(folder: Path) -> dict[str, Any]:
    return {"W": W, "b": b, "x": x, "y": labels, "dataset": list(zip(x, labels, strict=True))}


def right(rows: Any) -> None:
    """The rows are those of the model, for every sample."""
    assert list(rows) == list(range(ROWS))
    assert all(isinstance(p, float) for p in rows[7])
    assert np.abs(np.stack(list(rows.values())) - truth).max() < 1e-6


def rows_of_the_generator(names: dict[str, Any]) -> None:
    right(names["generator"].generate_distributions(names["dataset"]))


def file_of_torch(names: dict[str, Any]) -> None:
    right(names["distributions"])
    document = json.loads(Path("pytorch_dists.json").read_text())
    assert document["meta"]["framework"] == "pytorch"
    assert document["meta"]["device"] == "cuda"
    assert document["meta"]["model_name"] == "resnet50"
    assert np.abs(np.array(document["distributions"]["7"]) - truth[7]).max() < 1e-6


def statistics(names: dict[str, Any]) -> None:
    accuracy = float((truth.argmax(axis=1) == labels).mean())
    results = names.get("results") or names["generator"].generate()
    assert set(results) == {"info", "metrics", "class_distribution", "confidence"}
    assert results["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert results["class_distribution"]["ground_truth"] == {c: int(n) for c, n in enumerate(np.bincount(labels)) if n}


def trained(names: dict[str, Any]) -> None:
    # The targets are the net's own rows, so that the loss is zero where each stands beside its sample.
    assert abs(names["loss"].item()) < 1e-6
    assert names["inputs"].shape == (ROWS % 32 or 32, len(W))


def posteriors(names: dict[str, Any]) -> None:
    posterior = torch.load("posterior_params.pt")
    assert set(posterior) == {"linear.weight"}
    assert torch.equal(posterior["linear.weight"]["rho"], torch.full((2,), -3.0))


def nested(names: dict[str, Any]) -> None:
    assert names["data_on_device"]["metadata"]["features"].shape == (10, 128)


def nested_jax(names: dict[str, Any]) -> None:
    array = names["data_on_device"]["inputs"]["features"]
    assert next(iter(array.devices())).platform == "cpu"


def rows_of_the_last(names: dict[str, Any]) -> None:
    right(names["dists"])


def rows_of_the_block(names: dict[str, Any]) -> None:
    right(names["distributions"])


def batch_of_items(names: dict[str, Any]) -> None:
    right(names["distributions"])
    assert len(names["batch"][0]) == 2


def both_datasets(names: dict[str, Any]) -> None:
    torch_dataset = names["PyTorchDataset"]
    torch_dataset.__len__ = lambda self: ROWS  # which the guide leaves out, and torch's own loader wants too
    right(names["generator"].generate_distributions(torch_dataset()))
    right(
        jax_first_order_generator.FirstOrderDataGenerator(names["jax_model"]).generate_distributions(
            names["JAXDataset"]()
        )
    )


Names = Callable[[Path], dict[str, Any]]
Check = Callable[[dict[str, Any]], None]
CASES: dict[str, tuple[Names, Check | None]] = {
    "factory": (torch_names, statistics),
    "direct_imports": (agnostic_names, None),
    "torch_quick_start": (torch_names, file_of_torch),
    "torch_devices": (torch_names, rows_of_the_generator),
    "torch_training": (torch_names, trained),
    "torch_posteriors": (torch_names, posteriors),
    "torch_nested_tensors": (torch_names, nested),
    "torch_best_practices": (torch_names, rows_of_the_generator),
    "jax_quick_start": (jax_names, rows_of_the_block),
    "jax_devices": (jax_names, rows_of_the_generator),
    "jax_jit": (jax_names, rows_of_the_block),
    "jax_vmap": (jax_names, rows_of_the_generator),
    "jax_nested_arrays": (jax_names, nested_jax),
    "jax_best_practices": (jax_names, rows_of_the_generator),
    "tensorflow_quick_start": (tensorflow_names, statistics),
    "tensorflow_pipeline": (tensorflow_names, statistics),
    "tensorflow_strategy": (tensorflow_names, statistics),
    "tensorflow_tpu": (tensorflow_names, statistics),
    "tensorflow_best_practices": (tensorflow_names, None),
    "agnostic_quick_start": (agnostic_names, batch_of_items),
    "one_file_for_all": (all_names, rows_of_the_last),
    "metadata": (torch_names, None),
    "conversion": (all_names, None),
    "torch_to_jax": (all_names, rows_of_the_last),
    "datasets_of_both": (all_names, both_datasets),
    "benchmark_setup": (agnostic_names, None),
    "optimization": (all_names, None),
    "out_of_memory": (torch_names, rows_of_the_generator),
    "same_device": (torch_names, rows_of_the_generator),
    "deleted_array": (jax_names, None),
    "without_jit": (jax_names, rows_of_the_block),
    "precision": (all_names, None),
    "summary": (torch_names, rows_of_the_generator),
    "summary_by_framework": (all_names, rows_of_the_generator),
}


@pytest.fixture
def settings() -> Iterator[None]:
    """Puts back what blocks set for the whole process."""
    precision = torch.get_float32_matmul_precision()
    yield
    torch.backends.cudnn.benchmark = False
    torch.set_float32_matmul_precision(precision)
    tf.keras.mixed_precision.set_global_policy("float32")
    tf.config.optimizer.set_jit(False)


def test_there_is_a_case_for_each_block() -> None:
    assert list(CASES) == list(BLOCKS)
    assert len(BLOCKS) == 34


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning",  # Keras, of itself, when it saves HDF5
    "ignore:.*pin_memory.*:UserWarning",
    "ignore:This DataLoader will create:UserWarning",
)
@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NOT_WITHOUT and not (name == "torch_best_practices" and torch.cuda.is_available()):
        pytest.skip(f"it {NOT_WITHOUT[name]}")
    monkeypatch.chdir(tmp_path)
    code = BLOCKS[name]
    for old, new in CHANGED.get(name, ()):
        assert old in code
        code = code.replace(old, new)
    names_of, check = CASES[name]
    names = names_of(tmp_path) | {"datetime": datetime.datetime}
    exec(compile(code, f"the guide's block {name}", "exec"), names)
    if check is not None:
        check(names)
