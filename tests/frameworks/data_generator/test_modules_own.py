"""What only one of the guide's modules has: loaders and Bayesian layers of torch, pipelines and strategies of TensorFlow …"""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
tf = pytest.importorskip("tensorflow")
import jax.numpy as jnp  # noqa: E402
from data_generator_models import ROWS, W, b, labels, truth, x  # noqa: E402
from frameworks import of_jax, of_none, of_tensorflow, of_torch  # noqa: E402

from fo_onnx.data_generator import first_order_datagenerator as agnostic  # noqa: E402
from fo_onnx.data_generator import jax_first_order_generator as in_jax  # noqa: E402
from fo_onnx.data_generator import tensorflow_generator as in_tensorflow  # noqa: E402
from fo_onnx.data_generator import torch_first_order_generator as in_torch  # noqa: E402
from fo_onnx.errors import DataError  # noqa: E402


def right(rows: Any) -> bool:
    array = np.stack([np.asarray(r) for r in rows.values()])
    return list(rows) == list(range(ROWS)) and bool(np.abs(array - truth).max() < 1e-6)


class TestTorch:
    def test_functions_over_tensors(self) -> None:
        weights, bias = torch.tensor(W), torch.tensor(b)
        data = of_torch().data
        for function in (
            lambda inputs: inputs @ weights + bias,
            lambda inputs: inputs.matmul(torch.tensor(W)).add(torch.tensor(b)),
        ):
            assert right(in_torch.FirstOrderDataGenerator(function).generate_distributions(data))

    def test_an_input_getter_sees_batches(self) -> None:
        shapes: list[Any] = []

        def getter(batch: Any) -> Any:
            shapes.append(tuple(batch[0].shape))
            return batch[0].flatten(1)

        generator = in_torch.FirstOrderDataGenerator(of_torch().model, input_getter=getter, batch_size=32)
        assert right(generator.generate_distributions(of_torch().data))
        assert {s[0] for s in shapes} == {32, ROWS % 32}

    def test_loaders(self) -> None:
        generator, data = in_torch.FirstOrderDataGenerator(of_torch().model), of_torch().data
        for options in ({"batch_size": 10}, {"batch_size": 10, "num_workers": 2}, {"batch_size": None}):
            assert right(generator.generate_distributions(torch.utils.data.DataLoader(data, **options)))
        with pytest.raises(DataError, match="results could not be matched with samples"):
            generator.generate_distributions(torch.utils.data.DataLoader(data, batch_size=10, shuffle=True))

    def test_bayesian_layers(self) -> None:
        class Layer(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight_mu, self.weight_rho = (torch.nn.Parameter(torch.full((2, 2), v)) for v in (1.0, -3.0))
                self.bias = torch.nn.ParameterDict({"mu": torch.zeros(2), "rho": torch.ones(2)})
                self.lonely_mu = torch.nn.Parameter(torch.zeros(1))
                self.plain = torch.nn.Parameter(torch.zeros(1))

        net = torch.nn.Sequential(Layer(), Layer())
        posteriors = in_torch.FirstOrderDataGenerator(net).get_posterior_distributions()
        assert sorted(posteriors) == ["0.bias", "0.weight", "1.bias", "1.weight"]
        assert set(posteriors["0.weight"]) == {"mu", "rho"}
        assert torch.equal(posteriors["1.weight"]["rho"], net[1].weight_rho)
        assert not posteriors["0.weight"]["mu"].requires_grad
        posteriors["0.weight"]["mu"].zero_()
        assert bool((net[0].weight_mu == 1).all())

    def test_the_dataset_is_torchs(self, tmp_path: Path) -> None:
        data = in_torch.FirstOrderDataset(of_torch().data, dict(enumerate(truth)))
        assert isinstance(data, torch.utils.data.Dataset)
        assert len(data) == ROWS
        assert len(list(data)) == ROWS
        inputs, label, row = data[-1]
        assert np.allclose(inputs, x[-1])
        assert int(label) == labels[-1]
        assert row.dtype == torch.float32

    @pytest.mark.parametrize("targets", [torch.rand(ROWS), torch.rand(ROWS, 1), torch.eye(3)[torch.tensor(labels)]])
    def test_targets_are_never_an_optional_input(self, targets: Any) -> None:
        class Scaled(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = of_torch().model

            def forward(self, x: Any, scale: Any = None) -> Any:
                z = self.linear(x)
                return z if scale is None else z / (1 + scale)

        data = torch.utils.data.TensorDataset(torch.tensor(x), targets)
        generator = in_torch.FirstOrderDataGenerator(Scaled())
        for form in (data, torch.utils.data.DataLoader(data, batch_size=16), list(data)):
            assert right(generator.generate_distributions(form))

    def test_rows_are_saved_and_loaded_by_torch(self, tmp_path: Path) -> None:
        rows = in_torch.FirstOrderDataGenerator(of_torch().model).generate_distributions(of_torch().data)
        torch.save(rows, tmp_path / "rows.pt")
        assert torch.load(tmp_path / "rows.pt") == rows

    def test_one_hot_labels_count_as_classes(self) -> None:
        data = torch.utils.data.TensorDataset(torch.tensor(x), torch.eye(3)[torch.tensor(labels)])
        results = in_torch.PyTorchDataGenerator(of_torch().model, data).generate()
        assert results["metrics"]["accuracy"] == pytest.approx((truth.argmax(axis=1) == labels).mean())

    def test_a_subset_by_tensors(self) -> None:
        data = in_torch.FirstOrderDataset(of_torch().data, dict(enumerate(truth)))
        part = torch.utils.data.Subset(data, torch.tensor([6, 2]))
        assert np.allclose(part[0][2], truth[6])

    def test_lists_are_taken_apart(self) -> None:
        data = in_torch.FirstOrderDataset(
            [[torch.tensor(r), int(c)] for r, c in zip(x, labels, strict=True)], dict(enumerate(truth))
        )
        assert len(data[3]) == 3

    @pytest.mark.filterwarnings("ignore:os.fork:DeprecationWarning")
    def test_workers_give_every_row(self) -> None:
        loader = in_torch.output_dataloader(of_torch().data, dict(enumerate(truth)), batch_size=16, num_workers=2)
        assert isinstance(loader, torch.utils.data.DataLoader)
        parts = [dists for _, _, dists in loader]
        assert np.allclose(torch.cat(parts), truth)


class TestJax:
    def test_batches_are_stacked_through_structures(self) -> None:
        Pair = namedtuple("Pair", "left right")
        data = [({"x": row, "pair": Pair(row[:2], 1)}, int(label)) for row, label in zip(x, labels, strict=True)]
        inputs, targets, dists = next(iter(in_jax.output_dataloader(data, dict(enumerate(truth)), batch_size=5)))
        assert inputs["x"].shape == (5, 4)
        assert inputs["pair"].left.shape == (5, 2)
        assert isinstance(targets, jax.Array)
        assert dists.shape == (5, 3)

    def test_posteriors_of_a_pytree(self) -> None:
        model = {"dense": {"weight_mu": jnp.ones(2), "weight_rho": jnp.zeros(2)}, "bias": jnp.ones(1)}
        posteriors = in_jax.FirstOrderDataGenerator(model).get_posterior_distributions()
        assert list(posteriors) == ["dense.weight"]
        assert posteriors["dense.weight"]["mu"].tolist() == [1.0, 1.0]


class TestTensorFlow:
    @pytest.mark.parametrize("form", ["batched", "unbatched", "prefetched", "generator", "arrays", "samples"])
    def test_every_form_of_data_is_paired(self, form: str) -> None:
        whole = tf.data.Dataset.from_tensor_slices((x, labels))
        signature = (tf.TensorSpec((4,), tf.float32), tf.TensorSpec((), tf.int64))
        data = {
            "batched": whole.batch(10),
            "unbatched": whole,
            "prefetched": whole.batch(10).map(lambda a, c: (a, c)).prefetch(2),
            "generator": tf.data.Dataset.from_generator(
                lambda: zip(x, labels, strict=True), output_signature=signature
            ),
            "arrays": (x, labels),
            "samples": list(zip(x, labels, strict=True)),
        }[form]
        loader = in_tensorflow.output_dataloader(data, dict(enumerate(truth)), batch_size=16)
        assert isinstance(loader, tf.data.Dataset)
        assert len(loader) == -(-ROWS // 16)
        inputs, targets, dists = (np.concatenate(p) for p in zip(*loader.as_numpy_iterator(), strict=True))
        assert np.array_equal(inputs, x)
        assert np.array_equal(targets, labels)
        assert np.allclose(dists, truth)
        assert len(list(in_tensorflow.FirstOrderDataset(data, dict(enumerate(truth))))) == ROWS

    def test_a_shuffled_pipeline_is_refused(self) -> None:
        data = tf.data.Dataset.from_tensor_slices((x, labels)).shuffle(100)
        with pytest.raises(DataError, match="random order"):
            in_tensorflow.output_dataloader(data, dict(enumerate(truth)))
        with pytest.raises(DataError, match="random order"):
            in_tensorflow.TensorFlowDataGenerator(of_tensorflow().model, data).generate()

    def test_a_batched_dataset_is_not_batched_again(self) -> None:
        framework = of_tensorflow()
        for data in (framework.data, framework.data.unbatch(), framework.data.unbatch().batch(7)):
            results = in_tensorflow.TensorFlowDataGenerator(framework.model, data, batch_size=32).generate()
            assert results["info"]["dataset_size"] == ROWS
            assert results["metrics"]["accuracy"] == pytest.approx((truth.argmax(axis=1) == labels).mean())

    def test_within_a_strategy(self) -> None:
        with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
            model = of_tensorflow().model
            generator = in_tensorflow.TensorFlowDataGenerator(model, of_tensorflow().data, batch_size=32)
            assert right(generator.generate_distributions())

    def test_posteriors_of_keras_weights(self) -> None:
        class Layer(tf.keras.layers.Layer):
            def build(self, shape: Any) -> None:
                self.mu = self.add_weight(shape=(2,), name="kernel_mu", initializer="ones")
                self.rho = self.add_weight(shape=(2,), name="kernel_rho", initializer="zeros")

            def call(self, inputs: Any) -> Any:
                return inputs * self.mu

        model = tf.keras.Sequential([tf.keras.Input((2,)), Layer(name="bayes")])
        (posteriors,) = in_tensorflow.FirstOrderDataGenerator(model).get_posterior_distributions().values()
        assert posteriors["mu"].numpy().tolist() == [1.0, 1.0]


class TestAgnostic:
    def test_one_hot_labels_and_more_parts_are_passed_over(self) -> None:
        framework = of_none()
        for data in (
            [(row, np.eye(3)[c]) for row, c in zip(x, labels, strict=True)],
            [(row, -1, "note") for row in x],
            [(row,) for row in x],
            [row.tolist() for row in x],
        ):
            assert right(agnostic.FirstOrderDataGenerator(framework.model).generate_distributions(data))

    def test_a_model_of_any_framework(self) -> None:
        for framework in (of_torch(), of_jax(), of_tensorflow()):
            generator = agnostic.FirstOrderDataGenerator(framework.model)
            rows = generator.generate_distributions(list(zip(x, labels, strict=True)))
            assert right(rows)
            assert generator.last_run.runner == "onnx"

    def test_a_function_that_gives_lists(self) -> None:
        generator = agnostic.FirstOrderDataGenerator(lambda inputs: [(row @ W + b).tolist() for row in inputs])
        assert right(generator.generate_distributions(list(x)))

    def test_scikit_learn(self) -> None:
        from sklearn.linear_model import LogisticRegression

        estimator = LogisticRegression().fit(x, labels)
        wanted = estimator.predict_proba(x.astype(np.float64))
        for model in (estimator.predict_proba, estimator, lambda inputs: estimator.predict_proba(inputs)):
            rows = agnostic.FirstOrderDataGenerator(model).generate_distributions(list(zip(x, labels, strict=True)))
            assert np.abs(np.stack(list(rows.values())) - wanted).max() < 1e-6

    def test_batches_are_lists_of_items(self) -> None:
        data = list(zip(x, labels, strict=True))
        loader = agnostic.SimpleDataLoader(data, batch_size=10, shuffle=True)
        items = [item for batch in loader for item in batch]
        assert len(loader) == 8
        assert sorted(float(row[0]) for row, _ in items) == sorted(x[:, 0].tolist())
