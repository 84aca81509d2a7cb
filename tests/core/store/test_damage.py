"""Files that are cut short, changed, of another kind, or of a newer version: an error that says so, or a report."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fo_onnx.distributions import Distributions
from fo_onnx.errors import StoreError, StoreNotFoundError, StoreWriteError
from fo_onnx.store import FORMATS, check, load, save, target_format

PROBS = np.random.default_rng(0).dirichlet(np.ones(5), 3000).astype(np.float32)


@pytest.fixture
def d():
    return Distributions(
        PROBS, labels=np.arange(3000) % 5, meta={"model": {"class_names": list("abcde")}, "user": {"x": 1}}
    )


def read_all(path):
    found = load(path)
    _ = found.probs, found.ids, found.labels
    return found


@pytest.mark.parametrize("suffix", FORMATS)
def test_cut_short_anywhere(suffix, d, tmp_path):
    whole = save(d, tmp_path / f"d{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    for share in (0, 0.001, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(StoreError):
            read_all(path)
        assert not check(path).ok
    # The newline at the end of JSON is no content.
    path.write_bytes(whole[: -2 if suffix == ".json" else -1])
    with pytest.raises(StoreError):
        read_all(path)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"hello", b"\x00" * 1000, b"[1, 2, 3]", b'{"a": 1}', b"PK\x03\x04 no zip"])
def test_another_kind_of_file(suffix, content, tmp_path):
    path = tmp_path / f"d{suffix}"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=f"Reading .*d{suffix}") as caught:
        read_all(path)
    assert not isinstance(caught.value, StoreNotFoundError)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_under_every_other_name(suffix, d, tmp_path):
    path = save(d, tmp_path / f"d{suffix}")
    for other in FORMATS:
        if other != suffix:
            shutil.copy(path, tmp_path / f"e{other}")
            with pytest.raises(StoreError):
                read_all(tmp_path / f"e{other}")


def test_every_flipped_bit_in_parquet_is_caught(d, tmp_path):
    path = save(d, tmp_path / "d.parquet")
    whole = path.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    rng = np.random.default_rng(7)
    silent = []
    for position in rng.choice(np.arange(4, len(whole) - 8 - footer), 120, replace=False):
        bits = bytearray(whole)
        bits[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(bits)
        try:
            found = read_all(path)
        except StoreError:
            continue
        if not found.equals(d):
            silent.append(int(position))
    assert silent == []


def test_a_flipped_bit_is_only_caught_because_checksums_are_verified(d, tmp_path):
    """The test above could fail: without verifying, most flips pass."""
    path = save(d, tmp_path / "d.parquet")
    bits = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    start = column.data_page_offset + column.total_compressed_size - 200
    bits[start] ^= 1
    path.write_bytes(bits)
    with pytest.raises(StoreError, match="CRC checksum verification failed"):
        read_all(path)
    assert any("checksum" in problem for problem in check(path).problems)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".json", ".npy"])
def test_a_changed_number_is_found_by_check(suffix, d, tmp_path):
    path = save(d, tmp_path / f"d{suffix}")
    if suffix == ".json":
        text = path.read_text()
        row = text.splitlines()[1500]
        numbers = json.loads("{" + row.removesuffix(",") + "}")
        ((key, values),) = numbers.items()
        values[0], values[1] = values[0] + 1e-4, values[1] - 1e-4
        path.write_text(text.replace(row, json.dumps({key: values})[1:-1] + ","))
    else:
        data = bytearray(path.read_bytes())
        value = PROBS[1500].tobytes()
        at = data.index(value)
        # The sign of a probability, or so much that the row's sum is wrong.
        data[at + 3] ^= 0x80
        path.write_bytes(data)
    report = check(path)
    assert not report.ok
    expected = {".npz": "Bad CRC-32 for file 'probs.npy'", ".json": "metrics in meta are not those of the rows"}
    assert any(expected.get(suffix, "no distribution") in problem for problem in report.problems)


def with_meta(suffix, d, tmp_path, change):
    """A file whose meta was changed after it was written."""
    path = save(d, tmp_path / f"d{suffix}")
    if suffix == ".json":
        table = json.loads(path.read_text())
        table["meta"] = change(table["meta"])
        path.write_text(json.dumps(table))
    elif suffix == ".parquet":
        table = pq.read_table(path)
        meta = change(json.loads(table.schema.metadata[b"fo_onnx"]))
        pq.write_table(table.replace_schema_metadata({"fo_onnx": json.dumps(meta)}), path)
    elif suffix == ".npz":
        with np.load(path) as found:
            arrays = dict(found)
        arrays["meta"] = np.array(json.dumps(change(json.loads(str(arrays["meta"])))))
        np.savez(path, **arrays)
    else:
        from safetensors import safe_open
        from safetensors.numpy import save_file

        with safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            meta = change(json.loads(file.metadata()["fo_onnx"]))
        save_file(arrays, path, {"fo_onnx": json.dumps(meta)})
    return path


WITH_META = [".json", ".parquet", ".npz", ".safetensors"]


@pytest.mark.parametrize("suffix", WITH_META)
def test_files_written_by_other_writers_of_these_formats_are_read(suffix, d, tmp_path):
    path = with_meta(suffix, d, tmp_path, lambda meta: meta)
    assert read_all(path).equals(d)
    assert check(path).ok


@pytest.mark.parametrize("suffix", WITH_META)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m | {"schema": 2, "fo_onnx": "9.1"},
            r"schema 2, written by a newer fo-onnx \(9\.1\).*pip install -U",
        ),
        (lambda m: m | {"schema": "one"}, "meta.schema is 'one'; a version number was expected"),
        (lambda m: m | {"schema": True}, "meta.schema is True"),
        (lambda m: m | {"data": {}}, "meta.data.id_kind is missing"),
        (lambda m: m | {"data": {"id_kind": "float"}}, "neither 'int' nor 'str'"),
        (lambda m: {k: v for k, v in m.items() if k != "data"}, "meta.data.id_kind is missing"),
        (lambda m: m | {"rows": 7}, "meta.rows is a int; an object was expected"),
        (lambda m: m | {"rows": {"written": 2999}}, "meta says 2999 rows, the file holds 3000"),
        (lambda m: m | {"model": {"class_names": ["a"]}}, "meta names 1 classes, the rows have 5"),
        (lambda m: [1], "its meta is a list"),
    ],
)
def test_meta_that_is_of_another_version_or_wrong(suffix, change, message, d, tmp_path):
    path = with_meta(suffix, d, tmp_path, change)
    with pytest.raises(StoreError, match=message):
        load(path)
    assert not check(path).ok


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".safetensors"])
def test_without_a_schema_version(suffix, d, tmp_path):
    path = with_meta(suffix, d, tmp_path, lambda m: {k: v for k, v in m.items() if k != "schema"})
    with pytest.raises(StoreError, match="meta has no 'schema'"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": "x"}, "probs is said to be x; F32 with 2 axes within .* bytes of tensors was expected"),
        ({"ids": {"dtype": "I64"}}, "ids is said to be .*; I64 with 1 axes"),
        ({"labels": {"dtype": "I64", "shape": 3000, "data_offsets": [0, 24000]}}, "labels is said to be"),
        ({"__metadata__": {"fo_onnx": "{"}}, r"d\.safetensors, its meta: it is damaged.*JSONDecodeError"),
    ],
)
def test_a_header_of_safetensors_that_is_wrong_names_what_is_wrong(change, message, d, tmp_path):
    path = save(d, tmp_path / "d.safetensors")
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]) | change).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    with pytest.raises(StoreError, match=message):
        load(path)


def test_kinds_of_ids_that_do_not_agree(tmp_path):
    d = Distributions([[0.5, 0.5]], ids=["a"])
    path = with_meta(".parquet", d, tmp_path, lambda m: m | {"data": {"id_kind": "int"}})
    with pytest.raises(StoreError, match="meta says int ids, the file holds str ids"):
        load(path)
    path = with_meta(".json", d, tmp_path / "..", lambda m: m | {"data": {"id_kind": "int"}})
    with pytest.raises(StoreError, match="id_kind is 'int', but an id is not"):
        load(path)


def test_foreign_parquet(tmp_path):
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(StoreError, match="without 'fo_onnx' in its schema's metadata.*Its columns: a"):
        load(path)
    meta = json.dumps({"schema": 1, "data": {"id_kind": "int"}})
    pq.write_table(pa.table({"id": [1], "probs": [[0.5, 0.5]]}).replace_schema_metadata({"fo_onnx": meta}), path)
    with pytest.raises(StoreError, match=r"probs: list<.*expected were id .*fixed-size list of float32"):
        load(path)
    wide = pa.array([[0.5, 0.5], None], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"id": [1, 2], "probs": wide}).replace_schema_metadata({"fo_onnx": meta}), path)
    with pytest.raises(StoreError, match="a probs is null"):
        _ = load(path).probs


def test_foreign_npz_and_npy(tmp_path):
    np.savez(tmp_path / "d.npz", a=np.ones(3))
    with pytest.raises(StoreError, match="an npz with a; probs, ids and meta were expected"):
        load(tmp_path / "d.npz")
    np.save(tmp_path / "d.npy", np.ones((3, 2)))
    with pytest.raises(StoreError, match=r"shape \(3, 2\) and dtype float64"):
        load(tmp_path / "d.npy")
    np.save(tmp_path / "d.npy", np.ones(3, dtype=np.float32))
    with pytest.raises(StoreError, match=r"shape \(3,\) and dtype float32"):
        load(tmp_path / "d.npy")


def test_nothing_is_ever_unpickled(tmp_path):
    ran = []

    class Evil:
        def __reduce__(self):
            return (ran.append, (1,))

    np.save(tmp_path / "d.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], dtype=object), allow_pickle=True)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "d.npz", "w", compression) as archive:
            for name in ("probs", "ids", "meta"):
                archive.writestr(f"{name}.npy", buffer.getvalue())
        with pytest.raises(StoreError):
            load(tmp_path / "d.npz")
    with pytest.raises(StoreError, match="only unpickling could read"):
        load(tmp_path / "d.npy")
    assert ran == []


def test_the_json_of_the_older_generator(tmp_path):
    path = tmp_path / "d.json"
    meta = {"model_name": "resnet", "framework": "pytorch", "device": "cuda"}
    path.write_text(json.dumps({"meta": meta, "distributions": {"0": [0.1, 0.9], "7": [0.5, 0.5], "-3": [1, 0]}}))
    found = load(path)
    assert found.ids.tolist() == [0, 7, -3]
    assert found[0].tolist() == np.array([0.1, 0.9], dtype=np.float32).tolist()
    assert found.meta["schema"] == 0
    assert found.meta["model"] == {"name": "resnet", "framework": "pytorch", "class_names": None}
    assert found.meta["user"] == meta
    assert check(path).ok
    again = load(save(found, tmp_path / "e.json"))
    assert again.equals(found)
    assert again.meta["schema"] == 1


@pytest.mark.parametrize("keys", [["007", "8"], ["a", "1"], ["1.0"], ["²"]])
def test_older_json_with_keys_that_are_no_numbers(keys, tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps({"meta": {}, "distributions": {key: [0.5, 0.5] for key in keys}}))
    assert list(load(path)) == keys


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"meta": {}, "distributions": {"a": [0.5, 0.5], "a": [1, 0]}}', "duplicate ids, each may be there once: 'a'"),
        ('{"meta": {}, "distributions": {"a": [0.5, 0.5], "b": [1]}}', "lists of 2 numbers"),
        ('{"meta": {}, "distributions": {"a": [0.5, "x"]}}', "lists of 2 numbers"),
        ('{"meta": {}, "distributions": {"a": 0.5}}', "distributions that are no lists of 1 numbers"),
        ('{"meta": {}, "distributions": {"a": [0.5, null]}}', "no distribution .* ids 'a'"),
        ('{"meta": {}, "distributions": [[0.5, 0.5]]}', "an object with 'meta' and 'distributions' was expected"),
        ('{"meta": {}, "distributions": {"a": [1]}, "labels": {"b": 0}}', "ids of labels are not those of the"),
        ('{"meta": {}, "distributions": {"a": [1]}, "labels": {"a": 0.5}}', "labels that are no whole numbers"),
        ('{"meta": [], "distributions": {}}', "its meta is a list"),
        ('{"meta": {}, "distributions": {}', r"damaged, cut short or of another kind \(JSONDecodeError"),
        ("[" * 100_000, r"damaged, cut short or of another kind \(RecursionError"),
    ],
)
def test_foreign_json(text, message, tmp_path):
    path = tmp_path / "d.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=message):
        read_all(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"5":[', '"4":[', "duplicate ids, each may be there once: '4'"),
        ('"2999":[', '"4":[', "duplicate ids, each may be there once: '4'"),
        ('"5":[', '"x":[', "id_kind is 'int', but an id is not"),
        ('"5":[', '"5":[0.5,', "lists of 5 numbers"),
        ('"5":[', '5":[', r"damaged, cut short or of another kind \(JSONDecodeError"),
        ('\n"labels":{', '\n"lobels":{', "meta says that there are labels, the file holds none"),
        ('"5":[', '"5":[0.2,0.2,0.2,0.2,0.2],"05":[', "duplicate ids, each may be there once: 5"),
        ('"5":1', '"6":1', "duplicate ids"),
    ],
)
def test_our_json_changed_in_places(old, new, message, d, tmp_path):
    path = save(Distributions(PROBS, labels=np.where(np.arange(3000) == 5, 1, 0)), tmp_path / "d.json")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(StoreError, match=message):
        read_all(path)
    assert not check(path).ok


def test_json_rows_that_are_missing_or_too_many(tmp_path):
    path = save(Distributions(PROBS), tmp_path / "d.json")
    lines = path.read_text().splitlines(keepends=True)
    for changed in (lines[:10] + lines[11:], [*lines[:10], lines[10].replace('"8"', '"9999"'), *lines[10:]]):
        path.write_text("".join(changed))
        with pytest.raises(StoreError, match="meta says 3000 rows, the file holds (2999|3001)"):
            read_all(path)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_what_is_read_whole_stays_as_it_was_and_says_so_where_the_file_changed(suffix, d, tmp_path):
    path = save(d, tmp_path / f"d{suffix}")
    before, late = load(path), load(path)
    assert np.array_equal(before.probs, PROBS)
    with path.open("r+b") as file:
        file.write(path.read_bytes()[::-1])
    assert np.array_equal(before.probs, PROBS)
    with pytest.raises(StoreError, match="the file changed since it was loaded"):
        _ = late.probs
    path.unlink()
    assert np.array_equal(late.probs, PROBS)


def test_what_is_too_large_to_be_read_whole_names_the_formats_for_large_results(d, tmp_path, monkeypatch):
    large = r"Large results belong in Parquet, \.npy or a run folder"
    path = save(d, tmp_path / "d.npz")
    with np.load(path) as arrays:
        np.savez_compressed(tmp_path / "deflated.npz", **arrays)
    holes = tmp_path / "holes.json"
    holes.write_bytes(b"{")
    os.truncate(holes, 10**6)
    monkeypatch.setattr("fo_onnx.guards.limits.FREE_BYTES", 1000)
    monkeypatch.setenv("FO_ONNX_MAX_UNFOLD", "1")
    for name in ("deflated.npz", "holes.json"):
        with pytest.raises(StoreError, match=rf"{name}: .*FO_ONNX_MAX_UNFOLD=…\. {large}"):
            load(tmp_path / name)

    def no_memory(*_, **__):
        raise MemoryError

    monkeypatch.delenv("FO_ONNX_MAX_UNFOLD")
    monkeypatch.setattr("fo_onnx.store.formats.json.json.load", no_memory)
    with pytest.raises(StoreError, match=rf"d\.json: it takes more memory than there is\. {large}"):
        load(save(d, tmp_path / "d.json"))


@pytest.mark.parametrize("suffix", [*FORMATS, ""])
def test_rows_of_a_damaged_file_are_not_saved(suffix, tmp_path):
    probs = PROBS.copy()
    probs[7] = np.nan
    np.save(tmp_path / "damaged.npy", probs)
    with pytest.raises(StoreError, match=r"damaged\.npy: rows that are no distribution .* ids 7\."):
        save(load(tmp_path / "damaged.npy"), tmp_path / f"d{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.npy"]


def test_json_is_one_row_per_line_with_flat_keys_for_people(tmp_path):
    meta = {"model": {"name": "net", "framework": "torch", "class_names": None}, "user": {"device": "cuda", "rows": 5}}
    path = save(Distributions([[0.1, 0.9], [0.5, 0.5]], labels=[1, 0], meta=meta), tmp_path / "d.json")
    lines = path.read_text().splitlines()
    assert lines[1:] == [
        '"distributions":{',
        '"0":[0.1,0.9],',
        '"1":[0.5,0.5]',
        "},",
        '"labels":{',
        '"0":1,',
        '"1":0',
        "}}",
    ]
    top = json.loads(path.read_text())["meta"]
    assert (top["model_name"], top["framework"], top["device"]) == ("net", "torch", "cuda")
    assert top["rows"]["written"] == 2


def test_infinite_logits_survive_json(tmp_path):
    logits = np.array([[0, -np.inf], [np.inf, 1e-45]], dtype=np.float32)
    d = Distributions([[1, 0], [1, 0]], logits=logits)
    path = save(d, tmp_path / "d.json")
    assert "NaN" not in path.read_text()
    assert load(path).equals(d)


def test_a_value_that_json_has_not_is_named(tmp_path):
    d = Distributions([[1, 0]], meta={"user": {"a": [1, {"b": object()}]}})
    with pytest.raises(StoreError, match=r"meta\['user'\]\['a'\]\[1\]\['b'\], a object, cannot be written as JSON"):
        save(d, tmp_path / "d.parquet")
    with pytest.raises(StoreError, match=r"the key 1 of meta\['user'\] cannot be written"):
        save(Distributions([[1, 0]], meta={"user": {1: 2}}), tmp_path / "d.npz")
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_in_meta(tmp_path):
    d = Distributions([[1, 0]], meta={"user": {"a": np.float32(0.5), "b": np.arange(3)}})
    assert load(save(d, tmp_path / "d.npz")).meta["user"] == {"a": 0.5, "b": [0, 1, 2]}


def test_what_is_not_there(tmp_path):
    with pytest.raises(StoreNotFoundError, match="nothing is there"):
        load(tmp_path / "d.json")
    with pytest.raises(StoreNotFoundError, match="nothing is there"):
        load(tmp_path / "d")
    with pytest.raises(StoreNotFoundError, match="nothing is there"):
        check(tmp_path / "d.json")
    with pytest.raises(StoreNotFoundError, match="the folder .* is not there"):
        save(Distributions([[1, 0]]), tmp_path / "no" / "d.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="without run.json and manifest.json"):
        load(tmp_path / "empty")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StoreError, match="a file without a suffix"):
        load(tmp_path / "file")


def test_unknown_suffixes(tmp_path):
    listed = r"no format has the suffix '\.csv'; the suffixes are \.json, \.parquet, \.npz, \.npy, \.safetensors"
    (tmp_path / "d.csv").write_text("x")
    for attempt in (
        lambda: target_format("d.csv"),
        lambda: load(tmp_path / "d.csv"),
        lambda: check(tmp_path / "d.csv"),
        lambda: save(Distributions([[1, 0]]), tmp_path / "e.csv"),
    ):
        with pytest.raises(StoreError, match=listed):
            attempt()
    assert target_format("D.JSON") is FORMATS[".json"]
    assert target_format("run") is None


def test_a_target_that_is_a_folder(tmp_path):
    (tmp_path / "d.json").mkdir()
    with pytest.raises(StoreError, match="a folder of that name is there"):
        save(Distributions([[1, 0]]), tmp_path / "d.json", overwrite=True)


def test_a_folder_that_lets_nobody_write(tmp_path, monkeypatch):
    monkeypatch.setattr("fo_onnx.store.run.target.os.access", lambda *_: False)
    with pytest.raises(StoreWriteError, match="does not let you write. Choose another place"):
        save(Distributions([[1, 0]]), tmp_path / "d.json")


def test_one_row_of_parquet_reads_one_row_group(tmp_path, monkeypatch):
    probs = np.tile(PROBS, (20, 1))
    path = save(Distributions(probs), tmp_path / "d.parquet")
    read = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda self, i, **k: read.append(i) or original(self, i, **k))
    found = load(path)
    assert read == []
    assert np.array_equal(found[40_000], probs[40_000])
    assert read == [2]
    _ = found[40_001]
    assert read == [2]
    _ = found.slice(0, 10).probs
    assert read == [2, 0]


def test_parquet_is_laid_out_as_promised(d, tmp_path):
    file = pq.ParquetFile(save(Distributions(np.tile(PROBS, (6, 1))), tmp_path / "d.parquet"))
    assert [file.metadata.row_group(i).num_rows for i in range(2)] == [16_384, 18_000 - 16_384]
    column = file.metadata.row_group(0).column(1)
    assert column.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in column.encodings
    assert not column.has_dictionary_page
    assert "DELTA_BINARY_PACKED" in file.metadata.row_group(0).column(0).encodings
    assert file.schema_arrow.field("probs").type == pa.list_(pa.float32(), 5)
    assert json.loads(file.schema_arrow.metadata[b"fo_onnx"])["schema"] == 1
