"""The generators of all four modules: the same arguments, the same rows."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for _name in ("torch", "jax", "tensorflow"):
    pytest.importorskip(_name)
from data_generator_models import ROWS, W, b, labels, logits, truth, x  # noqa: E402
from frameworks import FRAMEWORKS, Framework  # noqa: E402

import fo_onnx as fo  # noqa: E402
from fo_onnx.data_generator.factory import MODULES, create_data_generator  # noqa: E402
from fo_onnx.errors import DataError, DeviceError, OptionError, OutputError, RunError, StoreError  # noqa: E402


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    return FRAMEWORKS[request.param]()


def make_generator(framework: Framework, model: Any = None, **options: Any) -> Any:
    return framework.module.FirstOrderDataGenerator(framework.model if model is None else model, **options)


def numbers(rows: Any) -> np.ndarray:
    return np.stack([np.asarray(r) for r in rows.values()])


def test_rows_are_a_plain_dict_of_lists(framework: Framework) -> None:
    generator = make_generator(framework)
    rows = generator.generate_distributions(framework.data, progress=False)
    assert type(rows) is dict
    assert list(rows) == list(range(ROWS))
    assert all(type(row) is list and all(type(p) is float for p in row) for row in rows.values())
    assert np.abs(numbers(rows) - truth).max() < 1e-6
    assert np.array_equal(numbers(rows).astype(np.float32), generator.run(framework.data).probs)
    assert generator.last_run.output == "logits"
    assert generator.last_run.runner == ("native" if generator.framework is None else "onnx")
    if generator.framework is not None:
        assert generator.last_run.reason is None
        assert generator.last_run.parity.passed


@pytest.mark.parametrize("runner", ["onnx", "native"])
def test_the_runner_may_be_chosen(framework: Framework, runner: str) -> None:
    generator = make_generator(framework, runner=runner)
    if generator.framework is None and runner == "onnx":
        with pytest.raises(fo.ExportError, match="plain callable"):
            generator.generate_distributions(framework.data)
        return
    assert np.abs(numbers(generator.generate_distributions(framework.data)) - truth).max() < 1e-6
    assert generator.last_run.runner == runner


@pytest.mark.parametrize("mode", ["probs", "PROBS", "auto"])
def test_what_the_model_gives_may_be_said(framework: Framework, mode: str) -> None:
    model = framework.model
    generator = make_generator(framework, lambda inputs: framework.softmax(model(inputs)), output_mode=mode)
    assert np.abs(numbers(generator.generate_distributions(framework.data)) - truth).max() < 1e-6


def test_the_models_own_softmax_and_one_that_is_said(framework: Framework) -> None:
    """Probabilities that are said to be logits get another softmax, as the caller wants it."""
    model = framework.model
    generator = make_generator(framework, lambda inputs: framework.softmax(model(inputs)), output_mode="logits")
    wanted = np.exp(truth) / np.exp(truth).sum(axis=1, keepdims=True)
    assert np.abs(numbers(generator.generate_distributions(framework.data)) - wanted).max() < 1e-6


def test_an_output_transform_gets_tensors(framework: Framework) -> None:
    seen: list[bool] = []

    def transform(z: Any) -> Any:
        seen.append(framework.is_row(z))
        return framework.softmax(z / 2)

    generator = make_generator(framework, output_transform=transform)
    wanted = np.exp(logits / 2) / np.exp(logits / 2).sum(axis=1, keepdims=True)
    assert np.abs(numbers(generator.generate_distributions(framework.data)) - wanted).max() < 1e-6
    assert all(seen)
    assert generator.last_run.output is None


def test_a_file_is_a_model_too(framework: Framework, tmp_path: Path) -> None:
    path = fo.export(FRAMEWORKS["torch"]().model, x, tmp_path / "model.onnx").path
    for model in (path, str(path), fo.OnnxModel.open(path)):
        assert (
            np.abs(numbers(make_generator(framework, model).generate_distributions((x, labels))) - truth).max() < 1e-6
        )


class TestHelpers:
    def test_to_probs(self, framework: Framework) -> None:
        generator = make_generator(framework)
        result = generator.to_probs(framework.model(next(iter(batch_of(framework)))))
        assert framework.is_row(result)
        assert np.abs(np.asarray(result) - truth[:8]).max() < 1e-6

    def test_to_probs_goes_by_the_last_run(self, framework: Framework) -> None:
        generator = make_generator(framework)
        generator.generate_distributions(framework.data)
        tensor = generator.tensors.tensor(np.array([[0.25, 0.75]], np.float32))
        wanted = np.exp([0.25, 0.75]) / np.exp([0.25, 0.75]).sum()
        assert np.allclose(generator.to_probs(tensor), wanted, atol=1e-6)
        assert np.allclose(make_generator(framework).to_probs(tensor), [[0.25, 0.75]])

    def test_to_probs_of_what_is_none(self, framework: Framework) -> None:
        tensor = make_generator(framework).tensors.tensor(np.array([[0.25, 0.75], [2.0, 3.0]], np.float32))
        with pytest.raises(OutputError, match="1 of 2 rows are no distribution as 'probs', row 1 first"):
            make_generator(framework, output_mode="probs").to_probs(tensor)

    def test_to_probs_of_one_number_per_sample(self, framework: Framework) -> None:
        tensor = make_generator(framework).tensors.tensor(np.array([[2.0], [-3.0]], np.float32))
        with pytest.raises(OutputError, match="say output_mode='binary_logits' or"):
            make_generator(framework, output_mode="logits").to_probs(tensor)
        assert np.asarray(make_generator(framework, output_mode="binary_logits").to_probs(tensor)).shape == (2, 2)

    def test_to_device(self, framework: Framework) -> None:
        generator = make_generator(framework)
        tensor = generator.tensors.tensor(np.ones(3, np.float32))
        result = generator.to_device({"a": [tensor, (tensor, "text")], "n": 3})
        assert result["n"] == 3
        assert result["a"][1][1] == "text"
        assert framework.is_row(result["a"][0])
        assert isinstance(result["a"][1], tuple)

    def test_to_no_named_device_is_the_value_itself(self, framework: Framework) -> None:
        value = collections.OrderedDict(a=1)
        assert make_generator(framework, device="auto").to_device(value) is value
        with pytest.raises(OptionError, match="cdua"):
            make_generator(framework, device="cdua").to_device({"n": 3})

    def test_to_a_device_that_is_not_there(self, framework: Framework) -> None:
        generator = make_generator(framework, device="tpu:7")
        if generator.framework is not None:
            with pytest.raises(DeviceError, match=r"device='tpu:7' was asked for, but"):
                generator.to_device(generator.tensors.tensor(np.ones(3, np.float32)))

    def test_prepares_batch_inp(self, framework: Framework) -> None:
        generator = make_generator(framework)
        assert generator.prepares_batch_inp((1, 2)) == 1
        assert generator.prepares_batch_inp({"a": 1}) == {"a": 1}
        assert generator.prepares_batch_inp([1, 2]) == (1 if generator.framework == "torch" else [1, 2])
        assert make_generator(framework, input_getter=lambda batch: batch["a"]).prepares_batch_inp({"a": 1}) == 1


def batch_of(framework: Framework) -> Any:
    yield framework.module.FirstOrderDataGenerator(None).tensors.tensor(x[:8])


class TestFiles:
    @pytest.mark.parametrize("suffix", ["json", "parquet", "npz"])
    def test_any_module_reads_what_another_wrote(self, framework: Framework, suffix: str, tmp_path: Path) -> None:
        path = tmp_path / "new" / f"rows.{suffix}"
        generator = make_generator(framework, model_name="linear")
        generator.save_distributions(
            path, generator.generate_distributions(framework.data), meta={"framework": "mine", "accuracy": 0.5}
        )
        for make in FRAMEWORKS.values():
            other = make()
            rows, meta = make_generator(other).load_distributions(path)
            assert type(rows) is dict
            assert np.abs(numbers(rows) - truth).max() < 1e-6
            assert (meta["framework"], meta["accuracy"], meta["model_name"]) == ("mine", 0.5, "linear")
            assert meta["runner"]["kind"] in ("onnx", "native")

    def test_any_dict_of_rows_may_be_saved(self, framework: Framework, tmp_path: Path) -> None:
        generator = make_generator(framework)
        rows = {i: generator.tensors.tensor(truth[i].astype(np.float32)) for i in (4, 2)}
        generator.save_distributions(tmp_path / "some.json", rows)
        generator.save_distributions(tmp_path / "some.json", {4: truth[4].tolist(), 2: truth[2].tolist()})
        result, _ = generator.load_distributions(tmp_path / "some.json")
        assert list(result) == [4, 2]
        assert np.allclose(result[2], truth[2])

    def test_a_file_of_the_generator_that_came_before(self, framework: Framework, tmp_path: Path) -> None:
        document = {
            "meta": {"model_name": "old", "note": "n"},
            "distributions": {str(i): truth[i].tolist() for i in range(3)},
        }
        (tmp_path / "old.json").write_text(json.dumps(document))
        result, meta = make_generator(framework).load_distributions(tmp_path / "old.json")
        assert list(result) == [0, 1, 2]
        assert np.allclose(result[2], truth[2], atol=1e-7)
        assert (meta["model_name"], meta["note"]) == ("old", "n")

    def test_the_record_goes_with_the_rows_that_the_generator_gave_last(
        self, framework: Framework, tmp_path: Path
    ) -> None:
        generator = make_generator(framework)
        rows = generator.generate_distributions(framework.data)
        generator.save_distributions(tmp_path / "rows.json", rows)
        again, meta = generator.load_distributions(tmp_path / "rows.json")
        assert again == rows
        generator.save_distributions(tmp_path / "again.parquet", again, meta={"note": "n"})
        _, of_again = generator.load_distributions(tmp_path / "again.parquet")
        assert of_again["runner"] == meta["runner"] == generator.last_run.meta["runner"]
        assert of_again["note"] == "n"
        rows[0] = rows[1]
        generator.save_distributions(tmp_path / "changed.json", rows)
        changed, of_changed = generator.load_distributions(tmp_path / "changed.json")
        assert changed[0] == rows[1]
        assert "runner" not in of_changed

    def test_a_folder_that_cannot_be_made(self, framework: Framework, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="its folder cannot be made"):
            make_generator(framework).save_distributions(tmp_path / "file" / "rows.json", {0: [0.5, 0.5]})

    def test_rows_that_are_no_numbers(self, framework: Framework, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="the row of 0 is no array of numbers"):
            make_generator(framework).save_distributions(tmp_path / "rows.json", {0: "x"})

    def test_a_path_without_suffix(self, framework: Framework, tmp_path: Path) -> None:
        with pytest.raises(OptionError, match=r"a path with a suffix was expected, such as .*rows.json"):
            make_generator(framework).save_distributions(tmp_path / "rows", {0: [0.5, 0.5]})


class TestTraining:
    def test_each_sample_stands_beside_its_row(self, framework: Framework) -> None:
        rows = make_generator(framework).generate_distributions(framework.data)
        seen = 0
        for inputs, targets, dists in batches(framework, framework.data, rows, shuffle=True):
            assert np.abs(softmax(np.asarray(inputs) @ W + b) - np.asarray(dists)).max() < 1e-6
            assert np.array_equal(np.asarray(targets), [labels[position_of(i)] for i in np.asarray(inputs)])
            seen += len(inputs)
        assert seen == ROWS

    def test_without_labels_there_are_two_parts(self, framework: Framework) -> None:
        data = [framework.module.FirstOrderDataGenerator(None).tensors.tensor(row) for row in x]
        rows = {i: truth[i].tolist() for i in range(ROWS)}
        first = next(iter(batches(framework, data, rows)))
        assert len(first) == 2
        assert np.allclose(first[1], truth[: len(first[1])])

    def test_an_input_getter(self, framework: Framework) -> None:
        loader = batches(framework, framework.data, dict(enumerate(truth)), input_getter=lambda sample: sample[0] * 2)
        inputs, _, dists = next(iter(loader))
        assert np.allclose(inputs, x[: len(inputs)] * 2)
        assert np.allclose(dists, truth[: len(inputs)])

    def test_files_and_distributions_do_as_well(self, framework: Framework, tmp_path: Path) -> None:
        dists = fo.Distributions(truth.astype(np.float32))
        fo.save(dists, tmp_path / "rows.parquet")
        for value in (dists, tmp_path / "rows.parquet", str(tmp_path / "rows.parquet")):
            parts = [np.asarray(d) for _, _, d in batches(framework, framework.data, value)]
            assert np.allclose(np.concatenate(parts), truth)

    def test_a_missing_row_is_named(self, framework: Framework) -> None:
        rows = {i if i != 5 else ROWS: truth[i].tolist() for i in range(ROWS)}
        with pytest.raises(KeyError, match="no distribution for the sample at index 5"):
            list(batches(framework, framework.data, rows))

    def test_a_row_that_the_run_left_out_is_a_warning_and_named(self, framework: Framework) -> None:
        present = np.arange(ROWS) != 5
        meta = {"rows": {"written": ROWS - 1, "skipped": 1, "quarantined": 0}}
        rows = fo.Distributions(truth[present], ids=np.flatnonzero(present), labels=labels[present])
        rows.meta |= meta
        with (
            pytest.warns(
                UserWarning, match=f"{ROWS - 1} distributions for {ROWS} samples: the run left 1 out"
            ) as caught,
            pytest.raises(KeyError, match="no distribution for the sample at index 5"),
        ):
            list(batches(framework, framework.data, rows))
        assert Path(caught[0].filename) == Path(__file__)

    @pytest.mark.parametrize("rows", [ROWS - 1, ROWS + 1])
    def test_a_dataset_of_another_length_is_refused(self, framework: Framework, rows: int) -> None:
        dists = {i: truth[i % ROWS].tolist() for i in range(rows)}
        message = f"there are {rows} distributions for {ROWS} samples; one per sample.*the dataset that they were generated from"
        for pair in (framework.module.output_dataloader, framework.module.FirstOrderDataset):
            with pytest.raises(DataError, match=message):
                pair(framework.data, dists)

    @pytest.mark.parametrize("form", ["arrays", "samples"])
    def test_a_dataset_with_other_labels_is_refused(self, framework: Framework, form: str, tmp_path: Path) -> None:
        fo.save(fo.Distributions(truth, labels=labels), tmp_path / "rows.parquet")
        other = labels.copy()
        other[[3, 7]] = (other[[3, 7]] + 1) % 3
        data = (x, other) if form == "arrays" else list(zip(x, other.tolist(), strict=True))
        message = (
            f"the labels of 2 of {ROWS} samples contradict those beside the distributions, first: the sample at index 3 has the "
            f"label {other[3]}, and the row of this id {labels[3]}\\. They are of another dataset, or of one in another order"
        )
        for pair in (framework.module.output_dataloader, framework.module.FirstOrderDataset):
            with pytest.raises(DataError, match=message):
                pair(data, tmp_path / "rows.parquet")
        same = (x, labels) if form == "arrays" else list(zip(x, labels.tolist(), strict=True))
        assert sum(len(b[0]) for b in batches(framework, same, tmp_path / "rows.parquet")) == ROWS

    def test_other_labels_of_samples_that_are_read_one_by_one(self, framework: Framework) -> None:
        other = labels.copy()
        other[20] = (other[20] + 1) % 3
        loader = batches(framework, OneByOne(other), fo.Distributions(truth, labels=labels))
        with pytest.raises(
            Exception, match=r"(?s)index 20 has the label .* another dataset|another label than its row"
        ):
            list(loader)
        assert (
            sum(len(b[0]) for b in batches(framework, OneByOne(labels), fo.Distributions(truth, labels=labels))) == ROWS
        )

    @pytest.mark.parametrize("form", [tuple, dict])
    def test_arrays_are_paired_row_by_row(self, framework: Framework, form: type) -> None:
        arrays = (x, labels) if form is tuple else {"x": x, "extra": labels}
        parts = list(batches(framework, arrays, dict(enumerate(truth))))
        assert np.allclose(np.concatenate([np.asarray(part[-1]) for part in parts]), truth)
        if form is tuple:
            assert np.array_equal(np.concatenate([np.asarray(part[0]) for part in parts]), x)
            assert np.array_equal(np.concatenate([np.asarray(part[1]) for part in parts]), labels)

    def test_a_loader_is_no_dataset(self, framework: Framework) -> None:
        from fo_onnx.data_generator.first_order_datagenerator import SimpleDataLoader

        with pytest.raises(
            DataError, match="samples cannot be taken by position from a SimpleDataLoader.*give its dataset"
        ):
            framework.module.output_dataloader(SimpleDataLoader(list(x)), dict(enumerate(truth)))


class OneByOne:
    """Samples that are made when they are asked for."""

    def __init__(self, own: np.ndarray) -> None:
        self.own = own

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return x[index], int(self.own[index])


def batches(framework: Framework, data: Any, rows: Any, **options: Any) -> Any:
    """The batches as tuples of arrays, also where the loader gives lists of items."""
    for batch in framework.module.output_dataloader(data, rows, batch_size=16, **options):
        if isinstance(batch[0], tuple):
            yield tuple(np.stack(part) for part in zip(*batch, strict=True))
        else:
            yield batch


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def position_of(row: np.ndarray) -> int:
    return int(np.flatnonzero((x == row).all(axis=1))[0])


class TestEvaluating:
    def test_how_the_model_does(self, framework: Framework, tmp_path: Path) -> None:
        generator = framework.evaluating(framework.model, framework.data, 16, "cpu")
        result = generator.generate()
        assert list(result) == ["info", "metrics", "class_distribution", "confidence"]
        assert result["info"]["dataset_size"] == ROWS
        assert result["info"]["batch_size"] == 16
        assert result["metrics"]["accuracy"] == pytest.approx((truth.argmax(axis=1) == labels).mean())
        assert sum(result["class_distribution"]["predicted"].values()) == ROWS
        assert result["class_distribution"]["ground_truth"] == {i: int((labels == i).sum()) for i in range(3)}
        assert result["confidence"]["mean"] == pytest.approx(truth.max(axis=1).mean(), abs=1e-6)
        assert result["confidence"]["std"] == pytest.approx(truth.max(axis=1).std(), abs=1e-6)
        assert np.abs(numbers(generator.generate_distributions()) - truth).max() < 1e-6
        assert generator.last_run.output == "logits"
        generator.save(tmp_path / "results.json")
        again = framework.evaluating(framework.model, framework.data)
        assert again.load(tmp_path / "results.json") == result == again.results

    def test_without_labels_there_is_less_to_say(self, framework: Framework) -> None:
        result = framework.evaluating(framework.model, x).generate(progress=False)
        assert result["metrics"] == {}
        assert list(result["class_distribution"]) == ["predicted"]

    def test_without_rows_there_is_nothing_to_say(self, framework: Framework, tmp_path: Path) -> None:
        generator = framework.evaluating(framework.model, x[:0])
        result = generator.generate(progress=False)
        assert result["info"]["dataset_size"] == 0
        assert result["confidence"] == {"mean": None, "std": None, "min": None, "max": None}
        generator.save(tmp_path / "results.json")
        assert "NaN" not in (tmp_path / "results.json").read_text()

    def test_what_cannot_be_saved_or_loaded(self, framework: Framework, tmp_path: Path) -> None:
        generator = framework.evaluating(framework.model, framework.data)
        with pytest.raises(RunError, match=r"there are no results yet; call generate\(\) first"):
            generator.save(tmp_path / "results.json")
        with pytest.raises(FileNotFoundError, match="nothing is there"):
            generator.load(tmp_path / "results.json")
        generator.results = {"info": {}, "metrics": {}, "class_distribution": {}, "confidence": {}}
        half = json.dumps(generator.results | {"class_distribution": {"predicted": {"no number": 1}}})
        for text in ("[]", "no JSON", "[" * 100_000, half, half.replace('{"no number": 1}', "3")):
            (tmp_path / "results.json").write_text(text)
            with pytest.raises(StoreError, match=r"results\.json"):
                generator.load(tmp_path / "results.json")
            with pytest.raises(StoreError, match=r"results\.json"):
                generator.save(tmp_path / "results.json")  # somebody else's
            assert (tmp_path / "results.json").read_text() == text

    def test_the_factory_tells_by_the_model(self, framework: Framework) -> None:
        assert type(create_data_generator("auto", framework.model, framework.data)) is framework.evaluating


class TestFactory:
    @pytest.mark.parametrize("name", [*MODULES, "PyTorch"])
    def test_by_name(self, name: str) -> None:
        framework = FRAMEWORKS["torch" if name.lower() == "pytorch" else name]()
        generator = create_data_generator(
            framework=name, model=framework.model, dataset=framework.data, batch_size=8, device="cpu"
        )
        assert type(generator) is framework.evaluating
        assert (generator.batch_size, generator.device) == (8, "cpu")

    def test_an_unknown_name(self) -> None:
        with pytest.raises(
            ValueError, match="framework='caffe' is not a choice; .*'auto', 'pytorch', 'tensorflow', 'jax', 'agnostic'"
        ):
            create_data_generator("caffe", None, None)

    def test_a_function_that_holds_nothing_goes_by_the_dataset(self) -> None:
        jax, tensorflow = FRAMEWORKS["jax"](), FRAMEWORKS["tensorflow"]()
        assert type(create_data_generator("auto", lambda x: x, tensorflow.data)) is tensorflow.evaluating
        assert type(create_data_generator("auto", lambda x: x, jax.data)) is jax.evaluating
        assert type(create_data_generator("auto", lambda x: x, x)) is FRAMEWORKS["agnostic"]().evaluating


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"output_mode": "logit"}, "output_mode='logit' is not a choice"),
        ({"runner": "tensorrt"}, "runner='tensorrt' is not a choice"),
        ({"batch_size": 0}, "batch_size=0 is not usable"),
    ],
)
def test_arguments_are_checked_when_they_are_given(framework: Framework, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_generator(framework, **options)


def test_a_loader_that_shuffles_is_refused(framework: Framework) -> None:
    from fo_onnx.data_generator.first_order_datagenerator import SimpleDataLoader

    rows = make_generator(framework).generate_distributions(SimpleDataLoader(list(x), batch_size=5))
    assert np.abs(numbers(rows) - truth).max() < 1e-6
    with pytest.raises(DataError, match="shuffle=True, so that results could not be matched with samples"):
        make_generator(framework).generate_distributions(SimpleDataLoader(list(x), shuffle=True))


@pytest.mark.parametrize(
    ("module", "own"),
    [
        ("first_order_datagenerator", None), ("factory", None), ("torch_first_order_generator", "torch"),
        ("jax_first_order_generator", "jax"), ("tensorflow_generator", "tensorflow"),
    ],
)  # fmt: skip
def test_no_module_imports_another_framework(module: str, own: str | None) -> None:
    loaded = imported_by(f"fo_onnx.data_generator.{module}")
    frameworks = {"torch", "jax", "tensorflow", "keras", "sklearn"}
    # TensorFlow itself imports what else it finds.
    allowed = set() if own is None else imported_by(own) | {own}
    assert loaded & frameworks <= allowed
    assert own is None or own in loaded


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(result.stdout.split())
