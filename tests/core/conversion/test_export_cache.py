"""Exports are kept by content: taken again where they are the same, thrown away where they are not."""

from __future__ import annotations

import io
import itertools
import json
import multiprocessing
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.conversion import cache as cache_module
from fo_onnx.conversion.cache import ExportCache
from fo_onnx.errors import OptionError
from fo_onnx.store import files

torch = pytest.importorskip("torch")
from kills import survives  # noqa: E402
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
    from fo_onnx_torch import export as conversion

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
        "print(fo.generate(net, np.ones((5, 6), np.float32), runner='onnx').meta['engine']['export'])"
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
    entry = entry_of(empty_cache)
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
    """A model in a folder of ours, since only there exports are fetched to."""
    path = tmp_path / "source" / "model.onnx"
    path.parent.mkdir()
    files.write_marker(path.parent, "fo-onnx.json", files.marker(files.KIND_TEMPORARY), "making a folder")
    linear(path)
    return path


def test_the_entries_used_longest_ago_go_first(tmp_path, file):
    size = file.stat().st_size
    cache = ExportCache(tmp_path / "cache", int(size * 3.9) + 4000)
    for i, key in enumerate(KEYS[:3]):
        cache.keep(key, file, SPEC)
        os.utime(tmp_path / "cache" / key, (i, i))
    limited = ExportCache(tmp_path / "cache", cache.state()["size_bytes"] + 10)
    assert limited.fetch(KEYS[0], file.with_name("out.onnx")) == SPEC

    limited.keep(KEYS[3], file, SPEC)

    assert [limited.fetch(k, file.with_name("out.onnx")) is not None for k in KEYS] == [True, False, True, True]


def test_a_file_above_the_limit_is_not_kept(tmp_path, file):
    cache = ExportCache(tmp_path / "cache", 10)
    cache.keep(KEYS[0], file, SPEC)
    assert cache.fetch(KEYS[0], file.with_name("out.onnx")) is None


def test_state_and_clear(tmp_path, file):
    cache = ExportCache(tmp_path / "cache", 1 << 20)
    assert (cache.state()["entries"], cache.clear()) == (0, 0)
    cache.keep(KEYS[0], file, SPEC)
    cache.keep(KEYS[1], file, SPEC)
    state = cache.state()
    assert (state["entries"], state["limit_bytes"], state["folder"]) == (2, 1 << 20, str(tmp_path / "cache"))
    assert state["size_bytes"] > 2 * file.stat().st_size
    assert cache.clear() == 2
    assert cache.state()["entries"] == 0


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
    assert cache.state()["entries"] == 1
    assert cache.clear() == 1
    assert (folder / "my thesis").is_dir()


def test_an_export_that_is_not_the_same_is_not_kept(exports, monkeypatch, empty_cache):
    from fo_onnx_torch import export as conversion

    counted = conversion.export

    def of_another(model, example, path, options, output):
        return counted(Net(5), example, path, options, output)

    monkeypatch.setattr(conversion, "export", of_another)
    with pytest.warns(fo.FallbackWarning):
        fo.generate(Net(), ROWS)

    assert not empty_cache.exists()


def test_external_data_is_called_like_the_model(exports, monkeypatch, tmp_path):
    """Two exports into one folder do not share a file of weights, also where both come out of the cache."""
    from fo_onnx_torch import export as conversion

    monkeypatch.setattr(conversion, "EXTERNAL_DATA_BYTES", 1)
    for seed in (0, 1):
        fo.generate(Wide(seed), ROWS)
    for seed in (0, 1):
        fo.export(Wide(seed), ROWS, tmp_path / f"net{seed}.onnx")

    assert exports == ["Wide", "Wide"]
    names = sorted(re.sub(r"[0-9a-f]{16}", "…", p.name) for p in tmp_path.iterdir())
    assert names == ["net0.onnx", "net0.onnx.….data", "net1.onnx", "net1.onnx.….data"]
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


# ------------------------------------------------------------------------------------------------- only this user's own


def entry_of(folder: Path) -> Path:
    (entry,) = (e for e in folder.iterdir() if e.is_dir() and e.name != "measurements")
    return entry


def test_the_cache_is_private(exports, empty_cache):
    before = os.umask(0)
    try:
        fo.generate(Net(), ROWS)
    finally:
        os.umask(before)
    entry = entry_of(empty_cache)
    assert [stat.S_IMODE(p.stat().st_mode) for p in (empty_cache, entry)] == [0o700, 0o700]
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in entry.iterdir()} == {
        "fo-onnx.json": 0o600,
        "model.onnx": 0o600,
        "spec.json": 0o600,
    }


def give_away(path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 65534, 65534)


@pytest.mark.parametrize("which", ["cache", "entry", "model.onnx", "spec.json"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (give_away, "belongs to another user"),
        (lambda p: p.chmod(0o720), "others may write"),
        (lambda p: p.chmod(0o702), "others may write"),
    ],
    ids=["another's", "the group's", "everybody's"],
)
def test_what_others_could_have_made_is_not_taken(tmp_path, file, caplog, which, change, said):
    cache = ExportCache(tmp_path / "cache", 1 << 20)
    cache.keep(KEYS[0], file, SPEC)
    entry = entry_of(cache.folder)
    change({"cache": cache.folder, "entry": entry}.get(which, entry / which))

    assert cache.fetch(KEYS[0], file.with_name("out.onnx")) is None
    assert said in caplog.text
    assert "name a folder of your own with FO_ONNX_CACHE_DIR" in caplog.text
    assert not file.with_name("out.onnx").exists()


def test_a_cache_of_others_is_left_alone_and_said_once(exports, empty_cache, caplog, run_doctor):
    fo.generate(Net(), ROWS)
    before = sorted(p.name for p in empty_cache.rglob("*"))
    empty_cache.chmod(0o777)
    for _ in range(2):
        assert how(fo.generate(Net(), ROWS)) == "new"
    assert caplog.text.count("is not taken: others may write") == 1
    assert sorted(p.name for p in empty_cache.rglob("*")) == before
    assert "TO BE MENDED: exports are not kept, and not taken from the cache: others may write" in run_doctor()
    assert f"Clearing the cache of exports at {empty_cache}: others may write" in run_doctor("--clear-cache")
    assert sorted(p.name for p in empty_cache.rglob("*")) == before


@pytest.fixture
def run_doctor() -> Any:
    from click.testing import CliRunner

    from fo_onnx.cli.main import main

    return lambda *arguments: CliRunner().invoke(main, ["doctor", *arguments]).output


@pytest.mark.parametrize("which", ["cache", "entry", "model.onnx", "spec.json"])
def test_links_are_not_followed(tmp_path, file, which):
    cache = ExportCache(tmp_path / "cache", 1 << 20)
    cache.keep(KEYS[0], file, SPEC)
    entry = entry_of(cache.folder)
    path = {"cache": cache.folder, "entry": entry}.get(which, entry / which)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    inside = sorted(p.name for p in tmp_path.rglob("*"))

    assert cache.fetch(KEYS[0], file.with_name("out.onnx")) is None
    cache.keep(KEYS[1] if which == "cache" else KEYS[0], file, SPEC)
    cache.drop(KEYS[0])
    assert sorted(p.name for p in tmp_path.rglob("*")) == inside


def test_an_entry_under_another_key_is_not_taken(tmp_path, file):
    cache = ExportCache(tmp_path / "cache", 1 << 20)
    cache.keep(KEYS[0], file, SPEC)
    (cache.folder / KEYS[0]).rename(cache.folder / KEYS[1])
    assert cache.fetch(KEYS[1], file.with_name("out.onnx")) is None
    assert not file.with_name("out.onnx").exists()


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "x", "fo-onnx.json", "data.99"])
def test_names_that_an_entry_has_not_are_not_written(tmp_path, file, name):
    cache = ExportCache(tmp_path / "cache", 1 << 20)
    cache.keep(KEYS[0], file, SPEC)
    path = cache.folder / KEYS[0] / "spec.json"
    record = json.loads(path.read_bytes())
    del record["digest"]
    record["files"][name] = record["files"]["model.onnx"]
    path.write_text(json.dumps(record | {"digest": cache_module._digest(record)}))
    before = sorted(p.name for p in file.parent.iterdir())

    assert cache.fetch(KEYS[0], file.with_name("out.onnx")) is None
    assert sorted(p.name for p in file.parent.iterdir()) == before


@pytest.mark.parametrize("foreign", ["thesis.tex", "folder/thesis.tex", "link"])
def test_what_a_user_put_into_an_entry_stays(tmp_path, file, foreign, caplog):
    cache = ExportCache(tmp_path / "cache", 1 << 20)
    cache.keep(KEYS[0], file, SPEC)
    cache.keep(KEYS[1], file, SPEC)
    thesis = cache.folder / KEYS[0] / foreign
    thesis.parent.mkdir(exist_ok=True)
    if foreign == "link":
        thesis.symlink_to(file)
    else:
        thesis.write_text("my own")
    inside = sorted(p.name for p in (cache.folder / KEYS[0]).rglob("*"))

    cache.drop(KEYS[0])
    assert thesis.parts[len(cache.folder.parts) + 1] in caplog.text
    ExportCache(cache.folder, file.stat().st_size + 600).keep(KEYS[2], file, SPEC)  # needs room
    with pytest.raises(
        fo.StoreError, match=r"1 cached exports were removed, and 1 stay: .*it holds what is not of fo-onnx"
    ):
        cache.clear()
    assert sorted(p.name for p in (cache.folder / KEYS[0]).rglob("*")) == inside
    assert cache.state()["entries"] == 1


@pytest.mark.parametrize("name", ["model.onnx", "notes.txt"])
def test_a_folder_of_a_user_under_the_name_of_a_beginning_stays(tmp_path, file, name, caplog):
    cache = ExportCache(tmp_path / "cache", 1 << 20)
    cache.keep(KEYS[1], file, SPEC)
    own = cache.folder / f"{KEYS[0]}.tmp" / name
    own.parent.mkdir(mode=0o700)
    own.write_text("my own")
    cache.keep(KEYS[0], file, SPEC)
    assert own.read_text() == "my own"
    assert "could not be kept in the cache" in caplog.text
    assert cache.fetch(KEYS[0], file.with_name("out.onnx")) is None


@pytest.mark.parametrize("text", ["1", "null", "{}", "{"])
def test_a_record_that_is_none_is_damaged(tmp_path, file, text, caplog):
    cache = ExportCache(tmp_path / "cache", 1 << 20)
    cache.keep(KEYS[0], file, SPEC)
    (cache.folder / KEYS[0] / "spec.json").write_text(text)
    assert cache.fetch(KEYS[0], file.with_name("out.onnx")) is None
    assert "is damaged (" in caplog.text
    assert "a new export replaces it" in caplog.text


def test_an_entry_that_another_process_has_just_removed_is_no_problem(tmp_path, file, monkeypatch, caplog):
    cache = ExportCache(tmp_path / "cache", 1 << 20)
    cache.keep(KEYS[0], file, SPEC)
    take_lock = files.take_lock

    def after_another(folder: Path, **options: Any) -> Any:
        shutil.rmtree(cache.folder / KEYS[0], ignore_errors=True)
        return take_lock(folder, **options)

    monkeypatch.setattr(files, "take_lock", after_another)
    assert cache.fetch(KEYS[0], file.with_name("out.onnx")) is None
    assert caplog.text == ""


def test_what_a_kill_left_is_removed(tmp_path, file):
    """At each step of keeping an entry in place of one that is there."""
    for step in itertools.count():
        cache = ExportCache(tmp_path / f"cache{step}", 1 << 20)
        cache.keep(KEYS[0], file, SPEC)
        survived = survives(step, lambda cache=cache: cache.keep(KEYS[0], file, SPEC))
        cache.keep(KEYS[0], file, SPEC)
        assert cache.fetch(KEYS[0], file.with_name("out.onnx")) == SPEC, step
        assert sorted(p.name for p in cache.folder.iterdir()) == [".lock", KEYS[0]], step
        if survived:
            break
    assert step > 10


@pytest.mark.parametrize("kind", ["a file", "a foreign lock"])
def test_a_place_that_is_no_cache_is_a_problem_that_doctor_names(tmp_path, kind, monkeypatch, caplog):
    folder = tmp_path / "cache"
    if kind == "a file":
        folder.write_text("thesis")
    else:
        folder.mkdir(mode=0o700)
        (folder / ".lock").write_text("thesis")
    monkeypatch.setenv("FO_ONNX_CACHE_DIR", str(folder))
    problem = ExportCache.of_user().state()["problem"]
    assert problem is not None
    assert str(folder) in problem
    assert "Errno" not in problem
    linear(tmp_path / "m.onnx")
    ExportCache.of_user().keep("0" * 40, tmp_path / "m.onnx", fo.OnnxModel.open(tmp_path / "m.onnx").spec)
    assert problem in caplog.text
