"""The contract of exporters. A new framework joins with a module like ``torch_framework`` and its name in `FRAMEWORKS`.

Every check is a function of a framework and a case, so that it can also be run against exporters that are wrong on
purpose.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exporter_framework import ExportCase, Framework

from fo_onnx.contracts.exporter import OffersNativePaths
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.runner import RawModel
from fo_onnx.errors import ExportError, RunError

FRAMEWORKS = {
    "torch": "torch_framework",
    "keras": "keras_framework",
    "jax": "jax_framework",
    "sklearn": "sklearn_framework",
}
SIZES = (1, 2, 7, 9)


@pytest.fixture(scope="module", params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    pytest.importorskip(request.param)
    found: Framework = importlib.import_module(FRAMEWORKS[request.param]).FRAMEWORK
    return found


class Wrapped:
    """An exporter around another."""

    def __init__(self, right: Any) -> None:
        self._right = right

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)


class ExportsOnce(Wrapped):
    """Gives the same file again for the same model, since exports take seconds."""

    def __init__(self, right: Any) -> None:
        super().__init__(right)
        self._known: dict[Any, tuple[Any, bytes]] = {}

    def export(self, model: Any, example: Any, path: Path, options: Any, output: Any) -> Any:
        key = (self._right.fingerprint(model, example), *((name, str(a.dtype)) for name, a in example.items()))
        if key not in self._known:
            spec = self._right.export(model, example, path, options, output)
            self._known[key] = (spec, path.read_bytes())
        spec, content = self._known[key]
        path.write_bytes(content)
        return spec


@pytest.fixture(scope="module")
def exporting_once(framework: Framework) -> Framework:
    return dataclasses.replace(framework, exporter=ExportsOnce(framework.exporter))


def part(inputs: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    return {k: v[:rows] for k, v in inputs.items()}


def exported(framework: Framework, case: ExportCase, model: Any, folder: Path) -> Path:
    path = folder / "model.onnx"
    framework.exporter.export(model, part(case.inputs, 3), path, ModelOptions(), OutputOptions())
    return path


def opened(framework: Framework, case: ExportCase, model: Any) -> RawModel:
    return framework.exporter.native(model, case.inputs, "cpu", ModelOptions(), OutputOptions())


def run_file(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    feed = inputs if set(names) == set(inputs) else dict(zip(names, inputs.values(), strict=True))
    found: list[np.ndarray] = session.run(None, feed)
    return found


def check_one_raw_output(framework: Framework, case: ExportCase, folder: Path) -> None:
    import onnx

    proto = onnx.load_model(exported(framework, case, case.make(), folder))
    onnx.checker.check_model(proto, full_check=True)
    assert len(proto.graph.output) == 1


def check_dynamic_batch(framework: Framework, case: ExportCase, folder: Path) -> None:
    import onnx

    path = exported(framework, case, case.make(), folder)
    for value in onnx.load_model(path).graph.input:
        assert not value.type.tensor_type.shape.dim[0].HasField("dim_value"), f"{value.name} has a fixed batch size"


def check_spec(framework: Framework, case: ExportCase, folder: Path) -> None:
    import onnx

    path = folder / "model.onnx"
    spec = framework.exporter.export(case.make(), part(case.inputs, 3), path, ModelOptions(), OutputOptions())
    graph = onnx.load_model(path).graph
    assert [i.name for i in spec.inputs] == [i.name for i in graph.input]
    assert spec.output.name == graph.output[0].name
    assert spec.output_kind is None, "what the output means is the core's to decide"
    assert spec.framework == framework.exporter.name
    assert all(i.shape[0] is None and i.rank == a.ndim for i, a in zip(spec.inputs, case.inputs.values(), strict=True))


def check_file_gives_the_raw_output(framework: Framework, case: ExportCase, folder: Path) -> None:
    model = case.make()
    expected = framework.answer(model, case.inputs)
    path = exported(framework, case, model, folder)
    for size in SIZES:
        (found,) = run_file(path, part(case.inputs, size))
        np.testing.assert_allclose(found, expected[:size], atol=1e-5, err_msg=f"batch of {size}")


def check_nothing_is_changed(framework: Framework, case: ExportCase, folder: Path) -> None:
    model, rows = case.make(), {k: v.copy() for k, v in case.inputs.items()}
    before = framework.snapshot(model)
    exported(framework, case, model, folder)
    assert framework.snapshot(model) == before, "export changed the model"
    raw = opened(framework, case, model)
    raw.forward(case.inputs)
    raw.close()
    assert framework.snapshot(model) == before, "the native runner changed the model"
    for name, array in case.inputs.items():
        np.testing.assert_array_equal(array, rows[name], err_msg=f"the rows of input {name} were changed")


def check_native_raw_output(framework: Framework, case: ExportCase, folder: Path) -> None:
    model = case.make()
    expected = framework.answer(model, case.inputs)
    raw = opened(framework, case, model)
    for size in SIZES:
        found = raw.forward(part(case.inputs, size))
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected[:size], atol=1e-5, err_msg=f"batch of {size}")
    again = raw.forward(case.inputs)
    assert np.array_equal(again, raw.forward(case.inputs)), "evaluation mode does not sample"
    raw.close()
    raw.close()


def check_fingerprint(framework: Framework, case: ExportCase, folder: Path) -> None:
    model = case.make()
    known = framework.exporter.fingerprint(model, case.inputs)
    assert framework.exporter.fingerprint(case.make(), case.inputs) == known, "equal models have equal fingerprints"
    opened(framework, case, model).forward(case.inputs)
    assert framework.exporter.fingerprint(model, case.inputs) == known, "running a model does not change it"
    framework.change_one_weight(model)
    assert framework.exporter.fingerprint(model, case.inputs) != known, "one weight changed"


def check_signature(framework: Framework, case: ExportCase, folder: Path) -> None:
    signature = framework.exporter.signature(case.make())
    assert signature is None or len(signature.required) == len(case.inputs)


def check_native_paths(framework: Framework, case: ExportCase, folder: Path) -> None:
    model = case.make()
    expected, before = framework.answer(model, case.inputs), framework.snapshot(model)
    assert isinstance(framework.exporter, OffersNativePaths)
    paths = framework.exporter.native_paths(model, case.inputs, ModelOptions(), OutputOptions())
    assert [path.name for path in paths] == framework.native_paths
    for path in paths:
        with path.open() as run:
            # Whole batches, and a last one of two rows.
            rows = run(case.inputs, 7)
        np.testing.assert_allclose(rows, expected, atol=1e-5, err_msg=path.name)
        assert framework.snapshot(model) == before, f"{path.name} changed the model"


FILE_CHECKS: list[Callable[[Framework, ExportCase, Path], None]] = [
    check_one_raw_output, check_dynamic_batch, check_spec, check_file_gives_the_raw_output,
]  # fmt: skip
"""Those that look at nothing but the file, so that one export serves them all."""
OBJECT_CHECKS: list[Callable[[Framework, ExportCase, Path], None]] = [
    check_nothing_is_changed, check_native_raw_output, check_fingerprint, check_signature,
]  # fmt: skip


@pytest.mark.parametrize("check", FILE_CHECKS, ids=lambda c: c.__name__.removeprefix("check_"))
def test_file_contract(exporting_once: Framework, check: Any, tmp_path: Path) -> None:
    for name, case in exporting_once.cases.items():
        (tmp_path / name).mkdir()
        check(exporting_once, case, tmp_path / name)


@pytest.mark.parametrize("check", OBJECT_CHECKS, ids=lambda c: c.__name__.removeprefix("check_"))
def test_contract(framework: Framework, check: Any, tmp_path: Path) -> None:
    for name, case in framework.cases.items():
        (tmp_path / name).mkdir()
        check(framework, case, tmp_path / name)


def test_native_paths(framework: Framework, tmp_path: Path) -> None:
    # One model, since compilers take their time.
    check_native_paths(framework, next(iter(framework.cases.values())), tmp_path)


def test_a_wrong_native_path_is_caught(framework: Framework, tmp_path: Path) -> None:
    wrong = dataclasses.replace(framework, exporter=OffersShiftedRows(framework.exporter))
    with pytest.raises(AssertionError, match="Not equal"):
        check_native_paths(wrong, next(iter(wrong.cases.values())), tmp_path)


def test_a_model_that_cannot_be_exported(framework: Framework, tmp_path: Path) -> None:
    case = framework.unexportable

    with pytest.raises(ExportError, match=framework.named_in_the_error):
        exported(framework, case, case.make(), tmp_path)

    expected = framework.answer(case.make(), case.inputs)
    np.testing.assert_allclose(opened(framework, case, case.make()).forward(case.inputs), expected, atol=1e-5)


def test_rows_of_a_wrong_shape(framework: Framework) -> None:
    case = framework.unexportable

    with pytest.raises(RunError, match=r"running \w+ in \w+ on .* failed"):
        opened(framework, case, case.make()).forward(framework.wrong_shape)


def test_accepts(framework: Framework) -> None:
    for case in framework.cases.values():
        assert framework.exporter.accepts(case.make())
    for other in (None, 3, "model.onnx", Path("x"), np.zeros(3), np.tanh, lambda x: x @ x, dict, object()):
        assert not framework.exporter.accepts(other), other
    begun = time.perf_counter()
    for _ in range(100):
        framework.exporter.accepts(lambda x: np.tanh(x))
    assert time.perf_counter() - begun < 0.5


def test_a_model_of_no_framework_imports_none(framework: Framework) -> None:
    program = (
        "import sys, numpy as np\n"
        "from fo_onnx.models import plugins\n"
        "for model in (None, 3, 'x', np.zeros(3), np.tanh, lambda x: np.tanh(x), object()):\n"
        "    assert plugins.exporter_for(model) is None, model\n"
        f"assert {framework.module!r} not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_fingerprint_is_the_same_in_another_process(framework: Framework) -> None:
    program = (
        framework.remade
        + "\nimport pickle, sys\nfrom fo_onnx.models import plugins\ninputs = pickle.load(sys.stdin.buffer)\n"
        + f"print(plugins.exporter({framework.exporter.name!r}).fingerprint(make(), inputs))"
    )
    case = next(iter(framework.cases.values()))
    inputs = pickle.dumps(case.inputs)
    command = [sys.executable, "-c", program]
    there = subprocess.run(command, input=inputs, check=True, timeout=120, capture_output=True)
    assert there.stdout.decode().strip() == framework.exporter.fingerprint(case.make(), case.inputs)


class WrongFile(Wrapped):
    def export(self, model: Any, example: Any, path: Path, options: Any, output: Any) -> Any:
        import onnx

        spec = self._right.export(model, example, path, options, output)
        proto = onnx.load_model(path)
        self.change(proto)
        onnx.save_model(proto, path)
        return spec

    def change(self, proto: Any) -> None:
        raise NotImplementedError


class FixedBatch(WrongFile):
    def change(self, proto: Any) -> None:
        for value in proto.graph.input:
            value.type.tensor_type.shape.dim[0].dim_value = 3


class SecondOutput(WrongFile):
    def change(self, proto: Any) -> None:
        proto.graph.output.append(proto.graph.input[0])


class OtherWeights(WrongFile):
    def change(self, proto: Any) -> None:
        import onnx

        kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
        floats = (t for t in proto.graph.initializer if t.data_type in kinds)
        bias = next(t for t in floats if [*t.dims][-1:] == [3] and np.prod(t.dims) == 3)
        array = onnx.numpy_helper.to_array(bias)
        # Not the same for each class, which a softmax would take away.
        other = (array + np.array([0, 0, 1e-3])).astype(array.dtype)
        bias.CopyFrom(onnx.numpy_helper.from_array(other, bias.name))


class LeavesEvaluationMode(Wrapped):
    def export(self, model: Any, *rest: Any) -> Any:
        if hasattr(model, "eval"):
            model.eval()
        else:
            model.trainable = False
        return self._right.export(model, *rest)


class BlindFingerprint(Wrapped):
    def fingerprint(self, model: Any, example: Any) -> str:
        return type(model).__name__


class WrongNative(Wrapped):
    def native(self, *arguments: Any) -> Any:
        raw, change = self._right.native(*arguments), self.change

        class Changed(Wrapped):
            def forward(self, inputs: Any) -> Any:
                return change(raw, inputs)

        return Changed(raw)

    def change(self, raw: Any, inputs: Any) -> Any:
        raise NotImplementedError


class ShiftedRows(WrongNative):
    def change(self, raw: Any, inputs: Any) -> Any:
        return np.roll(raw.forward(inputs), 1, axis=0)


class WritesIntoRows(WrongNative):
    def change(self, raw: Any, inputs: Any) -> Any:
        found = raw.forward(inputs)
        next(iter(inputs.values()))[:] *= 2
        return found


class Samples(WrongNative):
    def change(self, raw: Any, inputs: Any) -> Any:
        found = raw.forward(inputs)
        return found + np.random.default_rng().normal(0, 1e-7, found.shape)


class OffersShiftedRows(Wrapped):
    def native_paths(self, *arguments: Any) -> Any:
        def shifted(path: Any) -> Any:
            @contextlib.contextmanager
            def open_path() -> Any:
                with path.open() as run:
                    yield lambda inputs, size: np.roll(run(inputs, size), 1, axis=0)

            return dataclasses.replace(path, open=open_path)

        return [shifted(path) for path in self._right.native_paths(*arguments)]


MUTANTS = {
    FixedBatch: "dynamic_batch",
    SecondOutput: "one_raw_output",
    OtherWeights: "file_gives_the_raw_output",
    LeavesEvaluationMode: "nothing_is_changed",
    BlindFingerprint: "fingerprint",
    ShiftedRows: "native_raw_output",
    WritesIntoRows: "nothing_is_changed",
    Samples: "native_raw_output",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
def test_a_wrong_exporter_is_caught(exporting_once: Framework, mutant: Any, tmp_path: Path) -> None:
    wrong = dataclasses.replace(exporting_once, exporter=mutant(exporting_once.exporter))
    case = next(iter(wrong.cases.values()))
    case = dataclasses.replace(case, inputs={k: v.copy() for k, v in case.inputs.items()})
    checks = {c.__name__: c for c in (*FILE_CHECKS, *OBJECT_CHECKS)}

    with pytest.raises(AssertionError):
        checks[f"check_{MUTANTS[mutant]}"](wrong, case, tmp_path)
