"""A loaded file stays that file, or is an error; only regular files of fo-onnx are results."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from bounded import run_bounded

from fo_onnx.distributions import Distributions
from fo_onnx.distributions.columns import make_array
from fo_onnx.errors import StoreError, StoreWriteError
from fo_onnx.store import FORMATS, check, load, save
from fo_onnx.store.formats.registry import is_result

PROBS = np.random.default_rng(1).dirichlet(np.ones(4), 500).astype(np.float32)
OTHERS = PROBS[::-1].copy()


def rows_or_refusal(d):
    try:
        return d.probs, d.ids
    except StoreError as err:
        if "since it was loaded" in str(err):
            return None
        raise


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("read_before", [False, True])
def test_a_file_that_is_replaced_gives_its_own_rows_or_an_error(suffix, read_before, tmp_path):
    path = save(Distributions(PROBS), tmp_path / f"d{suffix}")
    d, sent = load(path), pickle.dumps(load(path))
    if read_before:
        assert np.array_equal(d[3], PROBS[3])
    save(Distributions(OTHERS), path, overwrite=True)
    found = rows_or_refusal(d)
    assert np.array_equal(found[0], PROBS)
    with pytest.raises(StoreError, match=f"d{suffix}: the file changed since it was loaded. Load it again"):
        _ = pickle.loads(sent).probs
    assert np.array_equal(load(path).probs, OTHERS)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_is_changed_in_place_is_an_error(suffix, tmp_path):
    path = save(Distributions(PROBS), tmp_path / f"d{suffix}")
    d = load(path)
    other = save(Distributions(OTHERS), tmp_path / f"e{suffix}").read_bytes()
    with path.open("r+b") as file:
        file.write(other)
    with pytest.raises(StoreError, match="changed since it was loaded"):
        _ = d.probs


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_is_gone(suffix, tmp_path):
    path = save(Distributions(PROBS), tmp_path / f"d{suffix}")
    d, sent = load(path), pickle.dumps(load(path))
    path.unlink()
    found = rows_or_refusal(d)
    assert found is None or np.array_equal(found[0], PROBS)
    with pytest.raises(StoreError, match="is gone since it was loaded"):
        _ = pickle.loads(sent).probs


@pytest.mark.parametrize("suffix", FORMATS)
def test_another_process_gets_the_path_and_not_the_rows(suffix, tmp_path):
    path = save(Distributions(np.tile(PROBS, (20, 1))), tmp_path / f"d{suffix}")
    d = load(path)
    _ = d.probs
    sent = pickle.dumps(d)
    assert len(sent) < 4000
    program = (
        "import pickle, sys; d = pickle.load(sys.stdin.buffer); print(d.probs.sum(), len(d.ids), d.meta['schema'])"
    )
    said = subprocess.run([sys.executable, "-c", program], input=sent, capture_output=True, check=True).stdout
    assert said.split() == f"{d.probs.sum()} {len(d)} 1".encode().split()


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_no_regular_file(suffix, tmp_path):
    path = tmp_path / f"d{suffix}"
    for make, kind in (
        (lambda: os.mkfifo(path), "a pipe"),
        (lambda: path.symlink_to("/dev/zero"), "a device"),
    ):
        make()
        for act in (load, check):
            outcome = run_bounded(lambda act=act: require_sound(act(path)), seconds=5)
            outcome.require_refusal(path)
            assert kind in outcome.message
        assert not is_result(path)
        path.unlink()


def require_sound(result):
    """What `check` reports, as an error."""
    if not isinstance(result, Distributions) and not result.ok:
        raise StoreError(result.problems[0])


@pytest.mark.parametrize("act", [load, check])
def test_what_the_system_refuses_names_the_file(act, tmp_path):
    (tmp_path / "d.json").symlink_to("d.json")
    with pytest.raises(StoreError, match=r"d\.json: nothing is there"):
        act(tmp_path / "d.json")
    with pytest.raises(StoreError, match=r"xx\.json: the operating system refuses \(File name too long\)"):
        act(tmp_path / f"{'x' * 300}.json")
    with pytest.raises(StoreError, match=r"a\\x00b\.json: nothing is there"):
        act(tmp_path / "a\0b.json")


def test_no_room_to_decode_into(tmp_path):
    outcome = run_bounded(lambda: make_array((2**28,), np.float32), gigabytes=0.5)
    assert (outcome.error, outcome.ours) == ("StoreWriteError", True)
    assert "Decoding rows into a temporary file of 1073741824 bytes" in outcome.message
    assert "set the environment variable TMPDIR to a folder that has room" in outcome.message


def test_ids_by_position_take_no_memory_in_a_check(tmp_path):
    np.save(tmp_path / "d.npy", np.ones((10**7, 1), np.float32))
    outcome = run_bounded(lambda: require_sound(check(tmp_path / "d.npy")))
    assert outcome.error is None, outcome
    assert outcome.peak_bytes < 8 * 10**7  # the file is 40 MB


def test_a_file_is_not_damaged_because_there_is_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr("fo_onnx.distributions.columns.IN_MEMORY_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    probs = np.full((50, 2), 0.5, np.float32)
    for ids in (None, np.arange(50) * 2, [f"{i:02d}" for i in range(50)][::-1]):
        assert check(save(Distributions(probs, ids=ids), tmp_path / "d.parquet", overwrite=True)).ok
    path = save(Distributions(probs, ids=range(50, 0, -1)), tmp_path / "d.parquet", overwrite=True)
    with pytest.raises(StoreWriteError, match="TMPDIR"):
        check(path)


def test_no_folder_to_decode_into(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(StoreWriteError, match="TMPDIR"):
        make_array((2**25,), np.float32)
    assert make_array((2, 3), np.float32).shape == (2, 3)


# ------------------------------------------------------------------------------------------------------ whose file it is


@pytest.mark.parametrize("suffix", FORMATS)
def test_results_of_ours_and_of_others(suffix, tmp_path):
    path = save(Distributions(PROBS), tmp_path / f"d{suffix}")
    assert is_result(path)
    (tmp_path / f"link{suffix}").symlink_to(path)
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"text{suffix}").write_text("hello")
    (tmp_path / f"empty{suffix}").write_bytes(b"")
    for name in ("link", "folder", "text", "empty", "none", "a\0b", "x" * 300):
        assert not is_result(tmp_path / f"{name}{suffix}")
    assert not is_result(path.with_suffix(""))
    assert not is_result(path.with_suffix(".txt"))


def test_files_of_other_programs_that_are_read_are_not_ours(tmp_path, monkeypatch):
    np.save(tmp_path / "d.npy", PROBS)
    (tmp_path / "d.json").write_text(json.dumps({"meta": {}, "distributions": {"a": [0.5, 0.5]}}))
    for name in ("d.npy", "d.json"):
        d = load(tmp_path / name)
        assert (d.meta["fo_onnx"], d.meta["created"]) == (None, None)
        assert not is_result(tmp_path / name)
        # Written by fo-onnx, they are.
        again = save(d, tmp_path / f"again.{name[2:]}")
        assert is_result(again)
    monkeypatch.setenv("FO_ONNX_MAX_HEADER_BYTES", "many")
    assert not is_result(tmp_path / "d.json")


# ------------------------------------------------------------------------------------------------------------ .npy


def test_npy_is_the_distributions_for_numpy_and_keeps_ids_and_meta_for_us(tmp_path):
    labels = np.arange(500) % 4
    meta = {"model": {"name": "net", "class_names": list("abcd")}, "identity": {"a": [1]}, "user": {"b": 2}}
    d = Distributions.from_rows(Distributions(PROBS, ids=[f"i{i}" for i in range(500)], labels=labels).source, meta)
    path = save(d, tmp_path / "d.npy")
    assert np.array_equal(np.load(path), PROBS)
    assert np.array_equal(np.load(path, mmap_mode="r"), PROBS)
    found = load(path)
    assert np.array_equal(found.probs, PROBS)
    assert found.ids.tolist() == [f"i{i}" for i in range(500)]
    assert found.labels is None
    assert found.class_names == tuple("abcd")
    assert {k: found.meta[k] for k in ("identity", "user")} == {"identity": {"a": [1]}, "user": {"b": 2}}
    assert found.meta["data"] | {"length": 500} == {
        "length": 500, "id_kind": "str", "labels": False, "logits": False, "classes": 4,
    }  # fmt: skip
    assert found.metrics()["accuracy"] == d.metrics()["accuracy"]
    assert check(path).problems == []


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(np.delete(np.arange(501), 1), id="a row is left out"),
        pytest.param(np.arange(500)[::-1], id="another order"),
        pytest.param(np.arange(500) + np.iinfo(np.int64).min, id="far from 0"),
        pytest.param([f"é{i}" for i in range(500)], id="text"),
    ],
)
@pytest.mark.parametrize("count", [500, 1, 0])
def test_an_npy_keeps_the_ids_of_its_rows(ids, count, tmp_path):
    path = save(Distributions(PROBS[:count], ids=ids[:count]), tmp_path / "d.npy")
    assert load(path).ids.tolist() == list(ids[:count])
    assert check(path).problems == []
    with path.open("rb") as file:
        assert np.array_equal(np.load(file), PROBS[:count])
        if count > 1:
            assert np.load(file, allow_pickle=False).tolist() == list(ids[:count])
    again = save(load(path), tmp_path / "again.npy")
    assert load(again).equals(load(path))


def test_an_npy_of_an_older_version_has_no_ids(tmp_path):
    """Those of rows by position are not written, so that such a file is what it was."""
    path = save(Distributions(PROBS), tmp_path / "d.npy")
    with path.open("rb") as file:
        assert np.array_equal(np.load(file), PROBS)
        assert b'"schema":1' in np.load(file).tobytes()
        assert file.read() == b""
    assert load(path).ids.tolist() == list(range(500))


def test_numpy_has_no_text_that_ends_in_nul(tmp_path):
    with pytest.raises(StoreError, match=r"Writing npy: .* the NUL at the end of the id 'a\\x00'; use Parquet or JSON"):
        save(Distributions(PROBS[:1], ids=["a\0"]), tmp_path / "d.npy")
    assert list(tmp_path.iterdir()) == []


def test_what_follows_the_rows_of_an_npy_must_be_a_record(tmp_path):
    path = tmp_path / "d.npy"
    for after in (np.zeros(3), np.zeros((2, 2), np.uint8), np.frombuffer(b"[1]", np.uint8)):
        with path.open("wb") as file:
            np.save(file, PROBS)
            np.save(file, after)
        with pytest.raises(StoreError, match=r"d\.npy: (after its rows an array|its meta is a list)"):
            load(path)
    with path.open("wb") as file:
        np.save(file, PROBS)
        file.write(b"\0")
    with pytest.raises(StoreError, match=r"d\.npy: it is damaged"):
        load(path)
