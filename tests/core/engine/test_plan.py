"""Devices, inputs and the plan of a run."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fo_onnx.contracts.options import DestinationOptions
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import DataError, DeviceError, OptionError
from fo_onnx.runtime.devices import Device, installed_wheels, missing_library, parse_device, placements
from fo_onnx.runtime.inputs import InputBinder
from fo_onnx.runtime.tuning import choose_batch_size, plan_batches


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("auto", Device("auto")),
        ("CPU", Device("cpu")),
        ("CPU:0", Device("cpu")),
        ("cuda", Device("cuda")),
        ("cuda:1", Device("cuda", 1)),
        ("gpu", Device("cuda")),
        ("/GPU:1", Device("cuda", 1)),
        ("/device:GPU:2", Device("cuda", 2)),
        ("TensorRT:1", Device("tensorrt", 1)),
        ("tpu:3", Device("tpu", 3)),
    ],
)
def test_names_of_devices(name, device):
    assert parse_device(name) == device


@pytest.mark.parametrize("name", ["gpu7x", "", "cuda:", "cuda:x", "xpu", "cuda:-1", 3, None])
def test_names_of_no_device(name):
    with pytest.raises(OptionError, match="is not known; known are auto, cpu, cuda, cuda:N"):
        parse_device(name)


def test_the_best_device_there_is():
    assert [p.device for p in placements("auto", "float32", ["CPUExecutionProvider"])] == ["cpu"]
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert [p.device for p in placements("auto", "float32", both)] == ["cuda:0", "cpu"]


def test_a_list_of_devices():
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    found = placements(("cuda:0", "cuda:1"), "float32", both)
    assert [dict(p.options)["device_id"] for p in found] == [0, 1]
    assert {dict(p.options)["use_tf32"] for p in found} == {0}
    assert dict(placements("cuda", "tf32", both)[0].options)["use_tf32"] == 1


def test_a_provider_that_is_not_installed_names_the_mend():
    with pytest.raises(
        DeviceError, match=r"device='cuda' was asked for.*pip install 'fo-onnx\[gpu\]'; or say device='cpu'"
    ):
        placements("cuda", "float32", ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="TPUs"):
        placements("tpu", "float32", ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="no TF32"):
        placements("cpu", "tf32", ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="no TF32"):
        placements("auto", "tf32", ["CPUExecutionProvider"])


def test_two_wheels_that_overwrite_each_other_are_found(tmp_path):
    """Real metadata on a real path, in a process of its own, since what is installed is what is read."""
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.0\n")
    code = """
from fo_onnx.runtime.devices import installed_wheels, placements
print(installed_wheels())
try: placements("cuda", "float32", ["CPUExecutionProvider"])
except Exception as err: print(err)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )
    assert "['onnxruntime', 'onnxruntime-gpu']" in done.stdout
    assert "onnxruntime and onnxruntime-gpu are installed together and overwrite each other" in done.stdout
    assert "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu" in done.stdout


def test_the_installed_wheel_is_seen():
    assert installed_wheels() == ["onnxruntime"]


def test_a_missing_library_is_named():
    import onnxruntime as ort

    assert "libonnxruntime_providers_cuda.so is not installed" in missing_library(ort, "CUDAExecutionProvider")


def images(n=4, side=32, dtype=np.float32):
    return {"0": np.zeros((n, 3, side, side), dtype)}


def test_batches_of_about_a_megabyte():
    assert choose_batch_size(images(), on_cpu=True) == 64
    assert choose_batch_size({"0": np.zeros((4, 784), np.float32)}, on_cpu=True) == 256
    assert choose_batch_size(images(side=224), on_cpu=True) == 16
    assert choose_batch_size({"0": np.zeros((4, 10), np.float32)}, on_cpu=True) == 256
    assert choose_batch_size({"0": np.zeros((4, 128), np.int64)}, on_cpu=True) == 32
    assert choose_batch_size(images(), on_cpu=False) == 1024


@given(
    st.integers(1, 512),
    st.integers(0, 10**7) | st.none(),
    st.integers(1, 128),
    st.integers(0, 10**10),
    st.integers(1, 4096),
)
def test_plans_never_ask_for_more_than_there_is(side, rows, cores, model_bytes, batch):
    found = plan_batches(
        {"0": np.zeros((1, side), np.float32)},
        rows,
        on_cpu=True,
        cores=cores,
        model_bytes=model_bytes,
        batch_size=batch,
    )
    assert found.batch_size == batch
    assert found.sessions >= 1
    assert found.sessions * found.threads <= max(cores, 1)
    assert found.sessions == 1 or found.sessions * model_bytes <= 2 << 30
    if rows:
        assert found.sessions <= -(-rows // batch)


def test_plans_are_the_same_again():
    args = {"on_cpu": True, "cores": 8, "model_bytes": 1000, "batch_size": "auto"}
    assert plan_batches(images(), 1000, **args) == plan_batches(images(2), 1000, **args)


def test_a_built_in_batch_size_wins():
    found = plan_batches(images(), 100, on_cpu=True, cores=2, model_bytes=1, batch_size="auto", fixed_batch=8)
    assert (found.batch_size, found.reason) == (8, "batch size built into the model")


def spec(*tensors):
    return ModelSpec(tuple(tensors), TensorSpec("out", "float32", (None, 3)), name="net")


IMAGE = TensorSpec("image", "float32", (None, 3, 8, 8))


def test_inputs_by_name_and_by_position():
    two = spec(TensorSpec("a", "float32", (None, 2)), TensorSpec("b", "int64", (None,)))
    a, b = np.zeros((4, 2), np.float32), np.arange(4)
    assert list(InputBinder(two).bind({"b": b, "a": a, "unused": a})) == ["a", "b"]
    assert InputBinder(two).bind({"0": a, "1": b})["b"] is b
    with pytest.raises(
        DataError, match=r"takes 2 input\(s\), a: float32 \(n, 2\), b: int64 \(n\); the data has 1, '0'"
    ):
        InputBinder(two).bind({"0": a})
    with pytest.raises(DataError, match="the data has 2, 'a', 'c'"):
        InputBinder(two).bind({"a": a, "c": b})


def test_a_single_input_takes_a_single_array_of_any_name():
    assert list(InputBinder(spec(IMAGE)).bind({"pixels": np.zeros((2, 3, 8, 8), np.float32)})) == ["image"]


def test_numbers_of_the_same_kind_are_cast():
    feed = InputBinder(spec(IMAGE)).bind({"0": np.ones((2, 3, 8, 8))})
    assert feed["image"].dtype == np.float32
    tokens = spec(TensorSpec("ids", "int64", (None, None)))
    assert InputBinder(tokens).bind({"0": np.ones((2, 5), np.uint8)})["ids"].dtype == np.int64
    small = spec(TensorSpec("ids", "int32", (None, None)))
    assert InputBinder(small).bind({"0": np.ones((2, 5), np.int64)})["ids"].dtype == np.int32


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"looks like NHWC .* takes NCHW: transpose it.*x.transpose\(2, 0, 1\)"),
        (np.zeros((2, 8, 8), np.float32), "an axis is missing"),
        (
            np.zeros((2, 1, 8, 8), np.float32),
            r"rows have shape \(1, 8, 8\), and its input image: float32 \(n, 3, 8, 8\)",
        ),
        (
            np.zeros((2, 3, 8, 8), np.uint8),
            r"the rows are uint8, .* takes float32. Convert them.*np.asarray\(x, 'float32'\)",
        ),
        (np.zeros((2, 3, 8, 8), np.complex64), "the rows are complex64"),
    ],
)
def test_rows_that_do_not_fit(array, text):
    with pytest.raises(DataError, match=text):
        InputBinder(spec(IMAGE)).bind({"0": array})


def test_channels_first_where_last_is_taken():
    with pytest.raises(DataError, match="looks like NCHW .* takes NHWC"):
        InputBinder(spec(TensorSpec("x", "float32", (None, 8, 8, 3)))).bind({"0": np.zeros((2, 3, 8, 8), np.float32)})


def test_numbers_that_do_not_fit_are_not_wrapped():
    with pytest.raises(DataError, match="int64 values do not fit into its input ids: int32"):
        InputBinder(spec(TensorSpec("ids", "int32", (None,)))).bind({"0": np.array([2**40])})


@pytest.mark.parametrize("out", [3, b"d.parquet"])
def test_out_that_is_no_path(out):
    with pytest.raises(OptionError, match="is no path: text or a pathlib.Path was expected"):
        DestinationOptions(out)
