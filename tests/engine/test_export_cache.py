"""Exports are kept by content: taken again where they are the same, thrown away where they are not."""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.engine.cache import ExportCache
from fo_onnx.errors import OptionError
from fo_onnx.spec import ModelSpec, TensorSpec

torch = pytest.importorskip("torch")
from onnx_files import linear  # noqa: E402
from torch import nn  # noqa: E402

ROWS = np.random.default_rng(0).standard_normal((40, 6), dtype=np.float32)
KEYS = [letter * 40 for letter in "abcd"]
SPEC = ModelSpec((TensorSpec("x", "float32", (None, 6)),), TensorSpec("output", "float32", (None, 3)), name="net")


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x) * 3


class Twisted(nn.Module):
    """What a C object holds, which no digest sees, turns the scores round."""

    def __init__(self, sign: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.out, self.twist = nn.Linear(6, 3), io.StringIO(str(sign))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x) * 3 * int(self.twist.getvalue())


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that were really exported."""
    from fo_onnx_torch import conversion

    made: list[str] = []
    right = conversion.export

    def counted(model: Any, *rest: Any) -> Any:
        made.append(type(model).__name__)
        return right(model, *rest)

    monkeypatch.setattr(conversion, "export", counted)
    return made


def native(model: nn.Module, rows: np.ndarray = ROWS) -> np.ndarray:
    with torch.no_grad():
        return torch.softmax(model(torch.from_numpy(rows)), 1).numpy()


def how(found: fo.Distributions) -> Any:
    return found.meta["engine"]["export"]


def test_the_second_run_starts_without_exporting(exports):
    first = fo.generate(Net(), ROWS)
    second = fo.generate(Net(), ROWS)

    assert exports == ["Net"]
    assert (how(first), how(second)) == ("new", "cached")
    assert np.array_equal(first.probs, second.probs)
    assert second.meta["parity"]["passed"]
    assert second.meta["parity"]["measured"] == "in this run"


def test_another_process_takes_it_too(tmp_path, empty_cache):
    program = (
        "import numpy as np, torch, sys, fo_onnx as fo\n"
        "torch.manual_seed(0)\n"
        "net = torch.nn.Sequential(torch.nn.Linear(6, 3))\n"
        "print(fo.generate(net, np.ones((5, 6), np.float32)).meta['engine']['export'])"
    )
    said = [
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120).stdout
        for _ in range(2)
    ]
    assert [s.strip() for s in said] == ["new", "cached"]


@pytest.mark.parametrize(
    "change",
    [
        lambda: (Net(1), {}, ROWS),
        lambda: (Net(), {"output_transform": lambda z: np.abs(z) / np.abs(z).sum(1, keepdims=True)}, ROWS[:, :6] * 1),
        lambda: (nn.Sequential(Net()), {}, ROWS),
    ],
    ids=["weights", "none: a transform acts on the raw output", "structure"],
)
def test_what_is_part_of_the_key(exports, change):
    fo.generate(Net(), ROWS)
    model, options, rows = change()
    found = fo.generate(model, rows, **options)

    assert how(found) == ("cached" if options else "new")


def test_an_export_takes_what_a_run_has_kept_and_names_its_own_classes(exports, tmp_path):
    fo.generate(Net(), ROWS)
    model = fo.export(Net(), ROWS, tmp_path / "net.onnx", class_names=["a", "b", "c"], temperature=2.0)

    assert exports == ["Net"]
    assert model.spec.class_names == ("a", "b", "c")
    found = fo.generate(model, ROWS)
    with torch.no_grad():
        expected = torch.softmax(Net()(torch.from_numpy(ROWS)) / 2, 1).numpy()
    np.testing.assert_allclose(found.probs, expected, atol=1e-6)


def test_an_export_that_nobody_compares_is_made_anew(exports, tmp_path):
    fo.generate(Net(), ROWS)
    fo.export(Net(), ROWS, tmp_path / "net.onnx", verify=False)

    assert exports == ["Net", "Net"]


def test_a_hit_that_is_another_model_is_thrown_away(exports):
    right, other = Twisted(1), Twisted(-1)
    fo.generate(right, ROWS)
    found = fo.generate(other, ROWS)

    assert exports == ["Twisted", "Twisted"], "both have one key"
    assert how(found) == "new"
    assert found.meta["runner"]["kind"] == "onnx"
    np.testing.assert_allclose(found.probs, native(other), atol=1e-6)
    assert how(fo.generate(other, ROWS)) == "cached"


def test_a_hit_that_is_another_model_is_thrown_away_by_export_too(exports, tmp_path):
    fo.generate(Twisted(1), ROWS)
    model = fo.export(Twisted(-1), ROWS, tmp_path / "net.onnx")

    assert exports == ["Twisted", "Twisted"]
    np.testing.assert_allclose(fo.generate(model, ROWS).probs, native(Twisted(-1)), atol=1e-6)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "no record"])
def test_a_damaged_entry_is_exported_anew(exports, empty_cache, damage):
    fo.generate(Net(), ROWS)
    (entry,) = (e for e in empty_cache.iterdir() if e.is_dir())
    file = entry / "model.onnx"
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[:100])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "gone":
        file.unlink()
    else:
        (entry / "spec.json").write_text("{")

    found = fo.generate(Net(), ROWS)

    assert exports == ["Net", "Net"]
    np.testing.assert_allclose(found.probs, native(Net()), atol=1e-6)
    assert how(fo.generate(Net(), ROWS)) == "cached"


def test_without_a_place_runs_go_on(exports, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FO_ONNX_CACHE_DIR", str(tmp_path / "file" / "cache"))

    assert how(fo.generate(Net(), ROWS)) == "new"
    assert "could not be kept in the cache" in caplog.text


def test_a_limit_of_nothing_keeps_nothing(exports, monkeypatch, empty_cache):
    monkeypatch.setenv("FO_ONNX_CACHE_GB", "0")
    fo.generate(Net(), ROWS)
    fo.generate(Net(), ROWS)

    assert exports == ["Net", "Net"]
    assert not empty_cache.exists()


@pytest.mark.parametrize("said", ["much", "-1", "nan", "inf"])
def test_a_limit_that_is_no_number(monkeypatch, said):
    monkeypatch.setenv("FO_ONNX_CACHE_GB", said)
    with pytest.raises(OptionError, match=f"FO_ONNX_CACHE_GB='{said}'; gigabytes were expected"):
        fo.generate(Net(), ROWS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "model.onnx"
    path.parent.mkdir()
    linear(path)
    return path


def test_the_entries_used_longest_ago_go_first(tmp_path, file):
    size = file.stat().st_size
    cache = ExportCache(tmp_path / "cache", int(size * 3.9) + 4000)
    for i, key in enumerate(KEYS[:3]):
        cache.keep(key, file, SPEC)
        os.utime(tmp_path / "cache" / key, (i, i))
    limited = ExportCache(tmp_path / "cache", cache.state().size_bytes + 10)
    assert limited.fetch(KEYS[0], tmp_path / "out.onnx") == SPEC

    limited.keep(KEYS[3], file, SPEC)

    assert [limited.fetch(k, tmp_path / "out.onnx") is not None for k in KEYS] == [True, False, True, True]


def test_a_file_above_the_limit_is_not_kept(tmp_path, file):
    cache = ExportCache(tmp_path / "cache", 10)
    cache.keep(KEYS[0], file, SPEC)
    assert cache.fetch(KEYS[0], tmp_path / "out.onnx") is None


def test_state_and_clear(tmp_path, file):
    cache = ExportCache(tmp_path / "cache", 1 << 20)
    assert (cache.state().entries, cache.clear()) == (0, 0)
    cache.keep(KEYS[0], file, SPEC)
    cache.keep(KEYS[1], file, SPEC)
    state = cache.state()
    assert (state.entries, state.limit_bytes, state.folder) == (2, 1 << 20, str(tmp_path / "cache"))
    assert state.size_bytes > 2 * file.stat().st_size
    assert cache.clear() == 2
    assert cache.state().entries == 0


def hammer(folder: str, source: str, seed: int, problems: Any) -> None:
    cache, out = ExportCache(Path(folder), 1 << 20), Path(source).with_name(f"out{seed}.onnx")
    expected = Path(source).read_bytes()
    random = np.random.default_rng(seed)
    try:
        for _ in range(60):
            key = KEYS[random.integers(4)]
            {0: lambda k: cache.keep(k, Path(source), SPEC), 1: cache.drop}.get(
                int(random.integers(6)), lambda k: None
            )(key)
            if cache.fetch(key, out) is not None and out.read_bytes() != expected:
                problems.put("a file that is not whole")
        problems.put(None)
    except Exception as err:
        problems.put(repr(err))


def test_two_processes_at_once(tmp_path, file):
    context = multiprocessing.get_context("spawn")
    problems = context.Queue()
    workers = [
        context.Process(target=hammer, args=(str(tmp_path / "cache"), str(file), seed, problems)) for seed in (1, 2)
    ]
    for worker in workers:
        worker.start()
    found = [problems.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
    assert found == [None, None]


def test_folders_of_others_are_left_alone(tmp_path, file):
    folder = tmp_path / "cache"
    (folder / "my thesis").mkdir(parents=True)
    cache = ExportCache(folder, file.stat().st_size * 3)
    cache.keep(KEYS[0], file, SPEC)
    cache.keep(KEYS[1], file, SPEC)
    assert cache.state().entries == 1
    assert cache.clear() == 1
    assert (folder / "my thesis").is_dir()


def test_an_export_that_is_not_the_same_is_not_kept(exports, monkeypatch, empty_cache):
    from fo_onnx_torch import conversion

    counted = conversion.export

    def of_another(model, example, path, options, output):
        return counted(Net(5), example, path, options, output)

    monkeypatch.setattr(conversion, "export", of_another)
    with pytest.warns(fo.FallbackWarning):
        fo.generate(Net(), ROWS)

    assert not empty_cache.exists()


def test_external_data_is_called_like_the_model(exports, monkeypatch, tmp_path):
    """Two exports into one folder do not share a file of weights, also where both come out of the cache."""
    from fo_onnx_torch import conversion

    monkeypatch.setattr(conversion, "EXTERNAL_DATA_BYTES", 1)
    for seed in (0, 1):
        fo.generate(Wide(seed), ROWS)
    for seed in (0, 1):
        fo.export(Wide(seed), ROWS, tmp_path / f"net{seed}.onnx")

    assert exports == ["Wide", "Wide"]
    assert {p.name for p in tmp_path.iterdir()} == {"net0.onnx", "net0.onnx.data", "net1.onnx", "net1.onnx.data"}
    for seed in (0, 1):
        found = fo.generate(tmp_path / f"net{seed}.onnx", ROWS)
        np.testing.assert_allclose(found.probs, native(Wide(seed)), atol=1e-5)


class Wide(nn.Module):
    """With weights large enough that the exporter puts them beside the model."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(6, 600), nn.ReLU(), nn.Linear(600, 600), nn.ReLU(), nn.Linear(600, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) * 30
