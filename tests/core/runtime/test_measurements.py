"""Measurements are kept between processes: whole, private, bounded, and never in the way of a run."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from kills import survives

from fo_onnx.errors import OptionError, StoreError
from fo_onnx.runtime import measurements as module
from fo_onnx.runtime.measurements import Measurements
from fo_onnx.store import files

KEY = {"model": "abc", "rows": [["x", "float32", [6]]]}
VALUE = {"rows_per_s": 12.5, "plan": {"batch_size": 4}}


@pytest.fixture
def kept(tmp_path: Path) -> Measurements:
    """Measurements with one record."""
    measurements = Measurements(tmp_path / "cache" / "measurements")
    measurements.keep("plan", KEY, VALUE)
    return measurements


def record_of(measurements: Measurements) -> Path:
    (record,) = (p for p in measurements.folder.iterdir() if p.name.startswith("plan-"))
    return record


def test_a_record_is_read_by_kind_and_key(kept: Measurements) -> None:
    assert kept.read("plan", KEY) == VALUE
    assert kept.read("plan", {"rows": [("x", "float32", (6,))], "model": "abc"}) == VALUE
    assert kept.read("export", KEY) is None
    assert kept.read("plan", KEY | {"model": "abd"}) is None


def test_the_newest_record_counts(kept: Measurements) -> None:
    kept.keep("plan", KEY, {"rows_per_s": 13.0})
    assert kept.read("plan", KEY) == {"rows_per_s": 13.0}
    assert kept.count() == 1


def test_another_machine_has_records_of_its_own(kept: Measurements, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, other in (("cpu_cores", lambda: 1000), ("_processor", lambda: "another")):
        with monkeypatch.context() as changed:
            changed.setattr(module, name, other)
            assert kept.read("plan", KEY) is None
    assert kept.read("plan", KEY) == VALUE


def test_the_user_s_own_lie_beside_the_exports(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    Measurements.of_user().keep("plan", KEY, VALUE)
    assert record_of(Measurements(empty_cache / "measurements"))
    assert Measurements.of_user().read("plan", KEY) == VALUE
    monkeypatch.setenv("FO_ONNX_CACHE_GB", "much")
    with pytest.raises(OptionError, match="FO_ONNX_CACHE_GB='much'; gigabytes were expected"):
        Measurements.of_user()


def test_a_limit_of_nothing_keeps_and_reads_nothing(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    monkeypatch.setenv("FO_ONNX_CACHE_GB", "0")
    Measurements.of_user().keep("plan", KEY, VALUE)
    assert not empty_cache.exists()
    monkeypatch.delenv("FO_ONNX_CACHE_GB")
    Measurements.of_user().keep("plan", KEY, VALUE)
    monkeypatch.setenv("FO_ONNX_CACHE_GB", "0")
    assert Measurements.of_user().read("plan", KEY) is None


def test_those_used_longest_ago_go_first(tmp_path: Path) -> None:
    measurements = Measurements(tmp_path / "m", most_records=3)
    for number in range(3):
        measurements.keep("plan", {"number": number}, VALUE)
    for age, path in enumerate(sorted(measurements.folder.glob("plan-*"))):
        os.utime(path, (age, age))
    oldest = [n for n in range(3) if (path_age(measurements, n)) == 0]
    measurements.read("plan", {"number": oldest[0]})  # used just now
    measurements.keep("plan", {"number": 3}, VALUE)
    assert measurements.count() == 3
    assert measurements.read("plan", {"number": oldest[0]}) == VALUE
    assert measurements.read("plan", {"number": 3}) == VALUE


def path_age(measurements: Measurements, number: int) -> float:
    name = module._file_name("plan", module._whole_key({"number": number}))
    return (measurements.folder / name).stat().st_mtime


def test_a_record_that_is_too_large_is_not_kept(kept: Measurements, caplog: pytest.LogCaptureFixture) -> None:
    kept.keep("plan", {"other": 1}, {"text": "x" * module.MOST_BYTES})
    assert kept.count() == 1
    assert "at most 65536 are kept" in caplog.text


def test_values_that_are_no_json_are_the_caller_s_fault(kept: Measurements) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        kept.keep("plan", KEY, {"rows_per_s": float("nan")})


# --------------------------------------------------------------------------------------------------- damaged and hostile


def sealed(**changes: Any) -> bytes:
    key = module._whole_key(KEY)
    record = {"schema": 1, "kind": "plan", "key": key, "value": VALUE} | changes
    return json.dumps(record | {"digest": module._digest(record)}).encode()


HOSTILE = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"1",
    "no digest": json.dumps({"schema": 1, "kind": "plan"}).encode(),
    "changed": sealed().replace(b"12.5", b"99.5"),
    "another key's": sealed(key={"model": "other"}),
    "another kind's": sealed(kind="export"),
    "a schema to come": sealed(schema=2),
    "no object as value": sealed(value=[1]),
    "deep": b"[" * 50_000,
    "huge": b" " * (module.MOST_BYTES + 1),
    "no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_record_is_warned_of_once_and_replaced(
    kept: Measurements, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    record_of(kept).write_bytes(content)
    assert kept.read("plan", KEY) is None
    assert kept.read("plan", KEY) is None
    assert caplog.text.count("is damaged (") == 1
    kept.keep("plan", KEY, VALUE)
    assert kept.read("plan", KEY) == VALUE


def give_away(path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 65534, 65534)


@pytest.mark.parametrize("which", ["folder", "record"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (give_away, "belongs to another user"),
        (lambda p: p.chmod(0o722), "others may write"),
    ],
    ids=["another's", "everybody's"],
)
def test_what_others_could_have_made_is_not_taken(
    kept: Measurements, which: str, change: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    change(kept.folder if which == "folder" else record_of(kept))
    assert kept.read("plan", KEY) is None
    assert said in caplog.text
    if which == "folder":
        kept.keep("plan", {"other": 1}, VALUE)
        assert "could not be kept" in caplog.text
        with pytest.raises(StoreError, match=said):
            kept.clear()
        assert kept.count() == 1


@pytest.mark.parametrize("which", ["folder", "record"])
def test_links_are_not_followed(kept: Measurements, tmp_path: Path, which: str) -> None:
    path = kept.folder if which == "folder" else record_of(kept)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path)
    assert kept.read("plan", KEY) is None
    kept.keep("plan", KEY, {"rows_per_s": 1.0})
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, Any]:
    return {str(p): p.is_symlink() or p.is_dir() or p.read_bytes() for p in folder.rglob("*")}


def test_records_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        measurements = Measurements(tmp_path / "cache" / "measurements")
        measurements.keep("plan", KEY, VALUE)
    finally:
        os.umask(before)
    folders = (measurements.folder.parent, measurements.folder)
    assert [stat.S_IMODE(p.stat().st_mode) for p in folders] == [0o700, 0o700]
    assert stat.S_IMODE(record_of(measurements).stat().st_mode) == 0o600


def test_all_of_it_is_cleared(kept: Measurements) -> None:
    kept.keep("plan", {"other": 1}, VALUE)
    assert kept.clear() == 2
    assert list(kept.folder.parent.iterdir()) == []
    assert (kept.count(), kept.clear()) == (0, 0)
    kept.keep("plan", KEY, VALUE)
    assert kept.read("plan", KEY) == VALUE


def test_what_is_not_ours_stays(kept: Measurements, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (kept.folder / "thesis.json").write_text("my own")
    (kept.folder / "plan-1.json").write_text("my own")
    assert kept.clear() == 1
    assert sorted(p.name for p in kept.folder.iterdir()) == [".lock", "fo-onnx.json", "plan-1.json", "thesis.json"]
    # A folder of somebody's that happens to have the name.
    foreign = Measurements(tmp_path / "foreign")
    foreign.folder.mkdir(mode=0o700)
    (foreign.folder / "thesis.tex").write_text("my own")
    foreign.keep("plan", KEY, VALUE)
    assert "holds what is not of fo-onnx" in caplog.text
    assert [p.name for p in foreign.folder.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("kind", ["a file", "no place"])
def test_without_a_folder_nothing_is_raised(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" if kind == "a file" else tmp_path / "file" / "measurements"
    measurements = Measurements(folder)
    measurements.keep("plan", KEY, VALUE)
    assert "a measurement could not be kept" in caplog.text
    assert measurements.read("plan", KEY) is None


# ------------------------------------------------------------------------------------------------- processes and kills


def hammer(folder: str, seed: int, problems: Any) -> None:
    measurements = Measurements(Path(folder), most_records=3)
    try:
        for turn in range(40):
            key = {"number": (turn * seed) % 4}
            measurements.keep("plan", key, {"number": key["number"], "filling": "x" * 5000})
            value = measurements.read("plan", {"number": turn % 4})
            if value is not None and value["number"] != turn % 4:
                problems.put("a record of another key")
        problems.put(None)
    except Exception as err:
        problems.put(repr(err))


def test_two_processes_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    problems = context.Queue()
    workers = [context.Process(target=hammer, args=(str(tmp_path / "m"), seed, problems)) for seed in (1, 3)]
    for worker in workers:
        worker.start()
    assert [problems.get(timeout=120) for _ in workers] == [None, None]
    for worker in workers:
        worker.join(timeout=60)
    assert Measurements(tmp_path / "m").count() == 3


def test_a_kill_at_any_step_leaves_whole_records(tmp_path: Path) -> None:
    for step in itertools.count():
        measurements = Measurements(tmp_path / f"m{step}")
        survived = survives(step, lambda m=measurements: m.keep("plan", KEY, VALUE))
        assert measurements.read("plan", KEY) in (None, VALUE), step
        measurements.keep("plan", {"other": 1}, VALUE)
        assert measurements.read("plan", {"other": 1}) == VALUE, step
        assert not list(measurements.folder.glob(f"*{files.TEMPORARY}")), step
        if survived:
            break
    assert step > 5
