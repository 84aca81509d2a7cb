"""JAX arrays as sources."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.contracts.batch import Batch
from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.errors import DataError
from fo_onnx.models import plugins
from fo_onnx.sources import open_source
from fo_onnx.sources.arrays import ArraySource
from fo_onnx.sources.sequences import RowSource

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from fo_onnx_jax.sources import JaxSources, to_array  # noqa: E402

X = jnp.arange(20.0).reshape(10, 2)
Y = jnp.arange(10) % 3


def opened(data: Any, **options: Any) -> Source:
    return open_source(data, DataOptions(**options), [JaxSources()])


def whole(source: Source) -> Batch:
    (batch,) = source.batches(100)
    return batch


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ((X, Y), ArraySource),
        ({"x": X, "label": Y}, ArraySource),
        (((X,), Y), ArraySource),
        ((X, np.asarray(Y)), ArraySource),
        (list(zip(X, Y, strict=True)), RowSource),
        ([{"x": x, "y": y} for x, y in zip(X, Y, strict=True)], RowSource),
    ],
)
def test_every_kind_gives_the_same_rows(data: Any, kind: type) -> None:
    source = opened(data)
    assert type(source) is kind
    assert source.length == 10
    batch = whole(source)
    (array,) = batch.inputs.values()
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, np.asarray(X))
    assert batch.labels is not None
    assert batch.labels.tolist() == Y.tolist()


def test_arrays_on_the_cpu_share_their_memory() -> None:
    address = X.unsafe_buffer_pointer()
    for data in (X, (X, Y), {"x": X}):
        source = opened(data)
        assert source.in_memory
        (array,) = source.peek(3).inputs.values()
        assert array.__array_interface__["data"][0] == address


def test_a_transform_sees_jax_arrays() -> None:
    def double(x: Any) -> Any:
        assert isinstance(x, jax.Array)
        assert x.shape == (2,)
        return x * 2

    np.testing.assert_array_equal(whole(opened(X, transform=double)).inputs["0"], np.asarray(X) * 2)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", np.float32), ("float8_e4m3fn", np.float32), ("float16", np.float16), ("int4", np.int8),
     ("uint4", np.uint8), ("int8", np.int8), ("uint8", np.uint8), ("bool", np.bool_)],
)  # fmt: skip
def test_dtypes_that_numpy_lacks(dtype: str, expected: type) -> None:
    rows = jnp.asarray([[0, 1], [1, 1]]).astype(dtype)
    for data in (rows, [*rows]):
        array = whole(opened(data)).inputs["0"]
        assert array.dtype == expected
        assert array.tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize(
    "data", [jax.random.split(jax.random.key(0), 4), (X[:4], jax.random.split(jax.random.key(0), 4))]
)
def test_keys_of_random_numbers(data: Any) -> None:
    with pytest.raises(
        DataError,
        match=r"holds keys of random numbers \(key<fry>\).* give jax\.random\.key_data\(keys\) if the numbers are",
    ):
        whole(opened(data))


def test_an_array_that_was_donated() -> None:
    donated = jnp.ones((4, 2))
    jax.jit(lambda x: x + 1, donate_argnums=0)(donated)
    assert donated.is_deleted()
    with pytest.raises(
        DataError, match=r"float32 \(4, 2\), was donated to a jitted function or deleted\. Give one that is"
    ):
        opened(donated)


def test_an_array_over_several_devices() -> None:
    program = (
        "import jax, jax.numpy as jnp, numpy as np, fo_onnx as fo\n"
        "from fo_onnx_jax.sources import JaxSources\n"
        "from fo_onnx.contracts.options import DataOptions\n"
        "from jax.sharding import Mesh, NamedSharding, PartitionSpec as P\n"
        "x = np.arange(24, dtype=np.float32).reshape(8, 3)\n"
        "there = jax.device_put(x, NamedSharding(Mesh(np.array(jax.devices()), ('rows',)), P('rows')))\n"
        "assert len(there.devices()) == 4\n"
        "source = JaxSources().open(there, DataOptions())\n"
        "np.testing.assert_array_equal(next(source.batches(100)).inputs['0'], x)\n"
        "result = fo.generate(lambda x: jnp.asarray(x) @ np.eye(3), there, runner='native')\n"
        "assert len(result) == 8\n"
    )
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


class TestAccepts:
    @pytest.mark.parametrize("data", [X, [X], (X, 1), {"a": X}, [(X, 1)], {"a": {"b": X}}])
    def test_its_own(self, data: Any) -> None:
        assert JaxSources().accepts(data)

    @pytest.mark.parametrize("data", [np.zeros(2), [np.zeros(2)], "x.npy", [], 3, None, range(3), iter([1])])
    def test_not_others(self, data: Any) -> None:
        assert not JaxSources().accepts(data)

    def test_torchs_stay_torchs(self) -> None:
        torch = pytest.importorskip("torch")
        dataset = torch.utils.data.TensorDataset(torch.ones(4, 2))
        for data in (
            torch.ones(3),
            dataset,
            torch.utils.data.DataLoader(dataset),
            [torch.ones(2)],
            iter([torch.ones(2)]),
        ):
            assert [f.name for f in plugins.source_factories() if f.accepts(data)] == ["torch"]

    def test_a_torch_dataset_of_jax_arrays(self) -> None:
        torch = pytest.importorskip("torch")

        class Rows(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
            def __len__(self) -> int:
                return 10

            def __getitem__(self, i: int) -> Any:
                return X[i], Y[i]

        batch = whole(open_source(Rows(), DataOptions(), tuple(plugins.source_factories())))
        np.testing.assert_array_equal(batch.inputs["0"], np.asarray(X))

    def test_it_does_not_import_jax(self) -> None:
        program = (
            "import sys; from fo_onnx_jax.sources import JaxSources\n"
            "print(JaxSources().accepts([1.0]), JaxSources().accepts(iter([1.0])), 'jax' in sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert run.stdout.split() == ["False", "False", "False"]


def test_to_array_of_what_is_not_jaxs() -> None:
    assert to_array([1.0, 2.0]).tolist() == [1, 2]
    rows = np.zeros((3, 2))
    assert to_array(rows) is rows


def test_rows_and_labels_through_the_verb() -> None:
    result = fo.generate(lambda x: jnp.asarray(x) @ np.ones((2, 3)) * jnp.arange(3.0), (X, Y), runner="native")
    assert result.labels is not None
    assert result.labels.tolist() == Y.tolist()
