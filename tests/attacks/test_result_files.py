"""Hostile files of results: each is an error of fo-onnx that names the file, soon, with little memory, and runs no code."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bounded import run_bounded

from fo_onnx.distributions import Distributions
from fo_onnx.errors import FoOnnxError
from fo_onnx.store import RunFolder, ShardLimits, check, load, save

N, K = 20, 3
PROBS = np.random.default_rng(0).dirichlet(np.ones(K), N).astype(np.float32)
META = {"schema": 1, "data": {"id_kind": "int"}, "rows": {"written": N}}
DEEP = "[" * 100_000


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def read_everything(path: Path) -> None:
    report = check(path)
    try:
        d = load(path)
        _ = d.probs, d.ids, d.labels, d.logits, d.class_names, list(d), d.metrics(), repr(d), d.to_dict()
    except FoOnnxError:
        assert not report.ok
        raise


# ---------------------------------------------------------------------------------------------------------------- JSON


def our_json(path: Path, change: Callable[[dict[str, Any]], Any] = lambda meta: None) -> None:
    """A file as `save` writes it, with another meta in its first line."""
    save(Distributions(PROBS, labels=np.arange(N) % K), path)
    first, rest = path.read_bytes().split(b"\n", 1)
    meta = json.loads(first[len(b'{"meta":') : -1])
    change(meta)
    path.write_bytes(b'{"meta":' + json.dumps(meta).encode() + b",\n" + rest)


def with_meta(*place: str, value: Any) -> Callable[[Path], None]:
    def change(meta: dict[str, Any]) -> None:
        for key in place[:-1]:
            meta = meta[key]
        meta[place[-1]] = value

    return lambda path: our_json(path, change)


def replaced(old: bytes, new: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        our_json(path)
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))

    return make


def text(content: str | bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(
        content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    )


def sparse(begin: bytes, size_bytes: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(begin)
        os.truncate(path, size_bytes)

    return make


JSON = {
    "rows 10^12": with_meta("rows", "written", value=10**12),
    "rows 10^8": with_meta("rows", "written", value=10**8),
    "rows negative": with_meta("rows", "written", value=-5),
    "rows true": with_meta("rows", "written", value=True),
    "rows a half": with_meta("rows", "written", value=19.5),
    "rows 2^70": with_meta("rows", "written", value=2**70),
    "rows a list": with_meta("rows", value=[N]),
    "skipped a text": with_meta("rows", "skipped", value="many"),
    "names a number": with_meta("model", "class_names", value=5),
    "names numbers": with_meta("model", "class_names", value=[1, 2, 3]),
    "names equal": with_meta("model", "class_names", value=["a", "a", "b"]),
    "names an object": with_meta("model", "class_names", value={"a": 1, "b": 2, "c": 3}),
    "metrics a list": with_meta("metrics", value=[]),
    "metrics of texts": with_meta("metrics", "confidence", value="high"),
    "metrics of other rows": with_meta("metrics", "confidence", "mean", value="x"),
    "user a text": with_meta("user", value="me"),
    "schema 10^30": with_meta("schema", value=10**30),
    "labels a text": with_meta("data", "labels", value="yes"),
    "a tuning that is no object": with_meta("engine", value="fast"),
    "deep": text(DEEP),
    "deep meta": text('{"meta":' + DEEP + ",\n}}\n"),
    "deep in ours": replaced(b'"user": {}', b'"user": {"a":' + DEEP.encode() + b"}"),
    "5,000 digits": replaced(b'"0":0', b'"0":' + b"1" * 5000),
    "an id of 5,000 digits": replaced(b'"0":[', b'"' + b"1" * 5000 + b'":['),
    "a row that is a number": text('{"meta":{},"distributions":{"a":5}}'),
    "a first row that is a number": replaced(b'"0":[', b'"0":5,"x":['),
    "a surrogate": text('{"meta":{},"distributions":{"\\ud800":[1]}}'),
    "no UTF-8": text(b'{"meta":{},"distributions":{"\xff\xfe":[1]}}'),
    "NUL": text(b'{"meta":{},"distributions":{"a":[\0]}}'),
    "infinite": text('{"meta":{},"distributions":{"a":[1e999,0]}}'),
    "a label of 2^70": text(f'{{"meta":{{}},"distributions":{{"a":[1]}},"labels":{{"a":{2**70}}}}}'),
    "a label that is no class": text('{"meta":{},"distributions":{"a":[1]},"labels":{"a":-1}}'),
    "10 GB of holes": sparse(b"{", 10 * 2**30),
    "a line of 10 GB of holes": sparse(b'{"meta":{"a":"', 10 * 2**30),
}

# ----------------------------------------------------------------------------------------------------------- .npy, .npz


def npy(shape: str, descr: str = "'<f4'", body: bytes = b"") -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + body


def saved(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def pickled(path: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Canary(path.with_name("canary"))] * N, dtype=object), allow_pickle=True)
    return buffer.getvalue()


def long_header(head: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()


RECORD = np.frombuffer(json.dumps(META).encode(), np.uint8)
NPY = {
    "negative": text(npy("(-2, -2)", body=bytes(16))),
    "empty but huge": text(npy(f"(0, {2**70})")),
    "empty and wide": text(npy(f"(0, {2**40})")),
    "true": text(npy("(True, 3)", body=PROBS[:1].tobytes())),
    "10^12 rows": text(npy("(10**12, 3)".replace("10**12", str(10**12)), body=PROBS.tobytes())),
    "2^70 rows": text(npy(f"({2**70}, 3)", body=PROBS.tobytes())),
    "minus signs": text(long_header("-" * 5000 + "1")),
    "parentheses": text(long_header("(" * 500)),
    "a header that is code": text(long_header("__import__('os').system('true')\n")),
    "objects": lambda path: path.write_bytes(pickled(path)),
    "fields": text(npy(f"({N},)", "[('a', '<f4')]", PROBS.tobytes())),
    "meta of 10^12 bytes": text(saved(PROBS) + npy(f"({10**12},)", "'|u1'", b"{}")),
    "meta that is deep": text(saved(PROBS) + saved(np.frombuffer(DEEP.encode(), np.uint8))),
    "meta of objects": lambda path: path.write_bytes(saved(PROBS) + pickled(path)),
    "ids of no Unicode": text(saved(PROBS) + npy(f"({N},)", "'<U1'", b"\xff\xff\xff\x7f" * N) + saved(RECORD)),
    "ids of 10^12 letters": text(saved(PROBS) + npy(f"({N},)", f"'<U{10**12}'", bytes(64)) + saved(RECORD)),
    "ids of no letters": text(saved(PROBS) + npy(f"({N},)", "'<U0'") + saved(RECORD)),
    "ids that are cut short": text(saved(PROBS) + npy(f"({N},)", "'<i8'", bytes(8 * N - 1))),
    "ids that are there twice": text(saved(PROBS) + saved(np.zeros(N, np.int64)) + saved(RECORD)),
    "ids without a record": text(saved(PROBS) + saved(np.arange(N))),
    "40 million rows of holes": sparse(npy(f"({4 * 10**7}, 3)"), 48 * 10**7 + len(npy(f"({4 * 10**7}, 3)"))),
}


def npz(path: Path, *, compression: int = zipfile.ZIP_STORED, **members: bytes) -> None:
    content = {"meta": saved(np.array(json.dumps(META))), "ids": saved(np.arange(N)), "probs": saved(PROBS), **members}
    with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
        for name, data in content.items():
            archive.writestr(f"{name}.npy", data)


def zeros(shape: str, descr: str, size_bytes: int) -> Callable[[Path], None]:
    """An npz whose probabilities, or meta, unfold to very much more than the file holds."""

    def make(path: Path) -> None:
        npz(path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = "meta.npy" if "U" in descr else "probs.npy"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for other, data in members.items():
                if other != name:
                    archive.writestr(other, data)
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(npy(shape, descr))
                for _ in range(size_bytes // 2**20):
                    file.write(bytes(2**20))

    return make


def twice(path: Path) -> None:
    npz(path)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("probs.npy", saved(PROBS[::-1]))


def patched(old: bytes, new: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        npz(path)
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))

    return make


def overlapping(path: Path) -> None:
    """The directory says that ids and labels begin at the same place."""
    npz(path, labels=saved(np.arange(N)))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"labels.npy") - 46
    other = data.rindex(b"ids.npy") - 46
    data[entry + 42 : entry + 46] = data[other + 42 : other + 46]
    path.write_bytes(data)


def encrypted(path: Path) -> None:
    npz(path)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"probs.npy") - 46
    data[entry + 8] |= 1
    path.write_bytes(data)


NPZ = {
    "a bomb": zeros(f"({2**26}, 1)", "'<f4'", 2**28),
    "a bomb of meta": zeros("()", f"'<U{2**26}'", 2**28),
    "2^70 rows": lambda path: npz(path, probs=npy(f"({2**70}, 3)")),
    "negative": lambda path: npz(path, probs=npy("(-20, -3)", body=PROBS.tobytes())),
    "no columns": lambda path: npz(path, probs=npy("(20, 0)")),
    "10^12 rows, deflated": lambda path: npz(path, compression=zipfile.ZIP_DEFLATED, probs=npy(f"({10**12}, 3)")),
    "objects": lambda path: npz(path, ids=pickled(path)),
    "objects, deflated": lambda path: npz(path, compression=zipfile.ZIP_DEFLATED, ids=pickled(path)),
    "meta a number": lambda path: npz(path, meta=saved(np.array(5))),
    "meta deep": lambda path: npz(path, meta=saved(np.array(DEEP))),
    "ids of no Unicode": lambda path: npz(path, ids=npy(f"({N},)", "'<U1'", b"\xff\xff\xff\x7f" * N)),
    "ids that are surrogates": lambda path: npz(path, ids=npy(f"({N},)", "'<U1'", b"\x00\xd8\x00\x00" * N)),
    "labels of another length": lambda path: npz(path, labels=saved(np.arange(5))),
    "labels that are no class": lambda path: npz(path, labels=saved(np.full(N, 2**62))),
    "logits of other columns": lambda path: npz(path, logits=saved(PROBS[:, :2])),
    "a member twice": twice,
    "members that overlap": overlapping,
    "encrypted": encrypted,
    "LZMA": lambda path: npz(path, compression=zipfile.ZIP_LZMA),
    "NUL in a name": patched(b"probs.npy", b"pro\0s.npy"),
    "local names that differ": lambda path: (npz(path), path.write_bytes(path.read_bytes().replace(b"probs.npy", b"prxbs.npy", 1))),
    "a directory of 2^32 entries": lambda path: path.write_bytes(b"PK\x05\x06" + b"\xff" * 18),
}  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- safetensors


def safetensors(path: Path, *, metadata: Any = None, **entries: Any) -> None:
    table = {
        "__metadata__": {"fo_onnx": json.dumps(META)} if metadata is None else metadata,
        "ids": {"dtype": "I64", "shape": [N], "data_offsets": [0, 160]},
        "probs": {"dtype": "F32", "shape": [N, K], "data_offsets": [160, 400]},
    } | entries
    head = json.dumps({k: v for k, v in table.items() if v is not ...}).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + np.arange(N).tobytes() + PROBS.tobytes())


def probs(**more: Any) -> Callable[[Path], None]:
    entry = {"dtype": "F32", "shape": [N, K], "data_offsets": [160, 400]} | more
    return lambda path: safetensors(path, probs=entry)


SAFETENSORS = {
    "a header of 2^63 bytes": text(struct.pack("<Q", 2**63) + b"{}"),
    "a header of 200 MB of holes": sparse(struct.pack("<Q", 200 * 10**6), 300 * 10**6),
    "a deep header": text(struct.pack("<Q", 300_000) + b'{"a":' * 60_000),
    "a header that is a list": text(struct.pack("<Q", 2) + b"[]"),
    "no UTF-8": text(struct.pack("<Q", 8) + b'{"\xff": 1}'),
    "2^70 rows": probs(shape=[2**70, 3]),
    "negative": probs(shape=[-20, -3]),
    "rows a half": probs(shape=[20.0, 3]),
    "true": probs(shape=[N, K, True]),
    "offsets a half": probs(data_offsets=[160.0, 400.0]),
    "offsets negative": probs(data_offsets=[-240, 0]),
    "offsets backwards": probs(data_offsets=[400, 160]),
    "offsets beyond the end": probs(data_offsets=[16000, 16240]),
    "offsets three": probs(data_offsets=[160, 400, 400]),
    "tensors that overlap": lambda path: safetensors(
        path, labels={"dtype": "I64", "shape": [N], "data_offsets": [0, 160]}
    ),
    "an entry that is a text": lambda path: safetensors(path, probs="x"),
    "an entry of deep shape": probs(shape=[[[[3]]]]),
    "another type": probs(dtype="F64"),
    "no columns": probs(shape=[N, 0], data_offsets=[400, 400]),
    "metadata a list": lambda path: safetensors(path, metadata=["fo_onnx"]),
    "meta an object": lambda path: safetensors(path, metadata={"fo_onnx": META}),
    "meta deep": lambda path: safetensors(path, metadata={"fo_onnx": DEEP}),
    "ids that are numbers": lambda path: safetensors(
        path, ids=..., metadata={"fo_onnx": json.dumps(META | {"data": {"id_kind": "str"}}), "ids": "[1, 2]"}
    ),
    "ids deep": lambda path: safetensors(path, ids=..., metadata={"fo_onnx": json.dumps(META), "ids": DEEP}),
}

# -------------------------------------------------------------------------------------------------------------- Parquet

WIDE = pa.list_(pa.float32(), K)


def parquet(path: Path, meta: Any = META, *, schema: pa.Schema | None = None, **columns: Any) -> None:
    """A file of these columns; with `schema`, one that claims to hold columns of other types."""
    table = pa.table({"id": pa.array(np.arange(N)), "probs": pa.array(PROBS.tolist(), WIDE), **columns})
    metadata = {b"fo_onnx": meta if isinstance(meta, bytes) else json.dumps(meta).encode()}
    if schema is not None:
        metadata[b"ARROW:schema"] = base64.b64encode(schema.serialize().to_pybytes())
    pq.write_table(table.replace_schema_metadata(metadata), path, store_schema=schema is None)


def one_row_of_many_values(path: Path) -> None:
    """10 million equal numbers in a row that is said to have three take next to no room in the file."""
    values = pa.array([np.zeros(10**7, np.float32)], pa.list_(pa.float32()))
    claimed = pa.schema([("id", pa.int64()), ("probs", WIDE)])
    parquet(path, META | {"rows": {"written": 1}}, schema=claimed, id=pa.array([0]), probs=values)
    assert path.stat().st_size < 10**5


def one_long_text(path: Path) -> None:
    """All ids are one text of 1 MB, which a dictionary holds once."""
    ids = pa.DictionaryArray.from_arrays(pa.array(np.zeros(16_000, np.int32)), pa.array(["x" * 2**20]))
    meta = {"schema": 1, "data": {"id_kind": "str"}}
    probs_ = pa.FixedSizeListArray.from_arrays(pa.array(np.tile([1.0, 0.0, 0.0], 16_000).astype(np.float32)), K)
    parquet(path, meta, schema=pa.schema([("id", pa.string()), ("probs", WIDE)]), id=ids, probs=probs_)
    assert path.stat().st_size < 10**6


def many_equal_rows(path: Path) -> None:
    """60 million rows in one row group, as a dictionary of one value."""
    with pq.ParquetWriter(
        path,
        pa.schema([("id", pa.int64()), ("probs", WIDE)], metadata={"fo_onnx": json.dumps({"schema": 1, "data": {"id_kind": "int"}})}),
        compression="zstd",
    ) as writer:  # fmt: skip
        part = pa.record_batch(
            {
                "id": pa.array(np.zeros(10**6, np.int64)),
                "probs": pa.FixedSizeListArray.from_arrays(pa.array(np.full(3 * 10**6, 1 / 3, np.float32)), K),
            }
        )
        writer.write_table(pa.Table.from_batches([part] * 30), row_group_size=30 * 10**6)
    assert path.stat().st_size < 10**6


def parquet_with(change: Callable[[bytearray], bytes | bytearray]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        parquet(path)
        path.write_bytes(change(bytearray(path.read_bytes())))

    return make


def other_footer(footer: bytes) -> Callable[[bytearray], bytes]:
    return lambda data: (
        bytes(data[: -8 - int.from_bytes(data[-8:-4], "little")]) + footer + struct.pack("<I", len(footer)) + b"PAR1"
    )


PARQUET = {
    "no footer": parquet_with(lambda data: data[:-4] + b"PARE"),
    "a footer of 4 GB": parquet_with(lambda data: data[:-8] + b"\xff\xff\xff\xff" + b"PAR1"),
    "a footer of zeros": parquet_with(other_footer(bytes(500))),
    "a footer of structs in structs": parquet_with(other_footer(b"\x1c" * 50_000)),
    "a footer of a list of 2^31": parquet_with(other_footer(b"\x19\xfc\xff\xff\xff\xff\x07" + bytes(20))),
    "ids null": lambda path: parquet(path, id=pa.array([None, *range(1, N)], pa.int64())),
    "rows null": lambda path: parquet(path, probs=pa.array([None, *PROBS[1:].tolist()], WIDE)),
    "numbers null": lambda path: parquet(path, probs=pa.array([[None, 0.5, 0.5], *PROBS[1:].tolist()], WIDE)),
    "rows of other lengths": lambda path: parquet(
        path, schema=pa.schema([("id", pa.int64()), ("probs", WIDE)]),
        probs=pa.array([[0.5, 0.5], [0.5, 0.5, 0, 0], *PROBS[2:].tolist()], pa.list_(pa.float32())),
    ),
    "one row of many values": one_row_of_many_values,
    "one long text": one_long_text,
    "many equal rows": many_equal_rows,
    "2^30 classes": lambda path: parquet(
        path, META | {"rows": {"written": 0}}, id=pa.array([], pa.int64()), probs=pa.array([], pa.list_(pa.float32(), 2**30))
    ),
    "another type": lambda path: parquet(path, id=pa.array([str(i) for i in range(N)]).cast(pa.binary())),
    "a schema that is none": lambda path: (
        parquet(path), pq.write_table(
            pq.read_table(path).replace_schema_metadata({"fo_onnx": json.dumps(META), "ARROW:schema": "////"}), path,
            store_schema=False),
    ),
    "meta deep": lambda path: parquet(path, DEEP.encode()),
    "meta no UTF-8": lambda path: parquet(path, b"\xff\xfe"),
    "meta of other rows": lambda path: parquet(path, META | {"rows": {"written": 10**12}}),
    "labels that are no class": lambda path: parquet(path, label=pa.array(np.full(N, -7))),
}  # fmt: skip

# ----------------------------------------------------------------------------------------------------------- run folders


def run_folder(path: Path) -> None:
    run = RunFolder.create(path, {}, {}, overwrite=False, limits=ShardLimits(size_bytes=8 * K * 4, group_rows=8))
    sink = run.sink(classes=K, id_kind="int", labels=False, logits=False)
    for start in range(0, N, 5):
        sink.append(np.arange(start, start + 5), PROBS[start : start + 5], None, None)
    sink.commit({})


def manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        run_folder(path)
        table = json.loads((path / "manifest.json").read_bytes())
        change(table)
        (path / "manifest.json").write_text(json.dumps(table))

    return make


def shard(**more: Any) -> Callable[[Path], None]:
    return manifest(lambda table: table["shards"][0].update(more))


def in_folder(act: Callable[[Path], Any], *, finished: bool = True) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        run_folder(path)
        if not finished:
            (path / "manifest.json").unlink()
        act(path)

    return make


def instead(name: str, make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def act(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return act


def first_shard(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    return instead("data/part-000000000000.parquet", make)


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def moved_data(folder: Path) -> None:
    (folder / "data").rename(folder.with_name("elsewhere"))
    (folder / "data").symlink_to(folder.with_name("elsewhere"))


def unpickled_run(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(pickle.dumps(Canary(folder.with_name("canary"))))


FOLDERS = {
    "rows 10^12": manifest(lambda t: (t["shards"][0].update(rows=10**12, stop=10**12), t["meta"]["rows"].update(written=10**12 + 12))),
    "rows negative": shard(rows=-8),
    "rows true": shard(rows=True),
    "rows 2^70": shard(rows=2**70),
    "a shard elsewhere": shard(file="../../../etc/passwd"),
    "a shard at the root": shard(file="/etc/passwd"),
    "a shard with a NUL": shard(file="part-\0.parquet"),
    "a shard that is a number": shard(file=5),
    "rows 2^62 twice": manifest(
        lambda t: (t["meta"].pop("rows"), [s.update(start=0, rows=2**62, stop=2**62) for s in t["shards"]])
    ),
    "a shard twice": manifest(lambda t: t["shards"].append(t["shards"][0])),
    "shards a text": manifest(lambda t: t.update(shards="all")),
    "shards of numbers": manifest(lambda t: t.update(shards=[1, 2])),
    "2^40 classes": manifest(lambda t: t["layout"].update(classes=2**40)),
    "classes true": manifest(lambda t: t["layout"].update(classes=True)),
    "a layout of lists": manifest(lambda t: t.update(layout=[])),
    "meta a list": manifest(lambda t: t.update(meta=[])),
    "names a number": manifest(lambda t: t["meta"]["model"].update(class_names=5)),
    "schema 10^30": manifest(lambda t: t.update(schema=10**30)),
    "a deep manifest": in_folder(lambda f: (f / "manifest.json").write_text(DEEP)),
    "a manifest that is a list": in_folder(lambda f: (f / "manifest.json").write_text("[]")),
    "a manifest that is no UTF-8": in_folder(lambda f: (f / "manifest.json").write_bytes(b'{"a":"\xff"}')),
    "a manifest that is a pickle": in_folder(unpickled_run),
    "a manifest that is a pipe": in_folder(instead("manifest.json", os.mkfifo)),
    "a manifest that never ends": in_folder(instead("manifest.json", zero)),
    "a deep run.json": in_folder(lambda f: (f / "run.json").write_text(DEEP), finished=False),
    "a run.json that is a pipe": in_folder(instead("run.json", os.mkfifo), finished=False),
    "a journal that is a pipe": in_folder(instead("journal.jsonl", os.mkfifo), finished=False),
    "a journal that never ends": in_folder(instead("journal.jsonl", zero), finished=False),
    "a shard that is a pipe": in_folder(first_shard(os.mkfifo)),
    "a shard that never ends": in_folder(first_shard(zero)),
    "data that is a link": in_folder(moved_data),
}  # fmt: skip

ATTACKS = {
    **{(".json", name): make for name, make in JSON.items()},
    **{(".npy", name): make for name, make in NPY.items()},
    **{(".npz", name): make for name, make in NPZ.items()},
    **{(".safetensors", name): make for name, make in SAFETENSORS.items()},
    **{(".parquet", name): make for name, make in PARQUET.items()},
    **{("", name): make for name, make in FOLDERS.items()},
    **{(suffix, "a pipe"): os.mkfifo for suffix in (".json", ".npy", ".npz", ".safetensors", ".parquet")},
    **{(suffix, "never ends"): zero for suffix in (".json", ".npy", ".npz", ".safetensors", ".parquet")},
}


@pytest.mark.parametrize(("suffix", "name"), ATTACKS, ids=[f"{s or 'folder'} {n}" for s, n in ATTACKS])
def test_hostile_results(suffix, name, tmp_path):
    path = tmp_path / f"attack{suffix}"
    ATTACKS[suffix, name](path)
    outcome = run_bounded(lambda: read_everything(path))
    outcome.require_refusal(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("suffix", [".json", ".npy", ".npz", ".safetensors", ".parquet", ""])
def test_honest_results_pass(suffix, tmp_path):
    """What the attacks are made from is sound but for what they change."""
    path = tmp_path / f"attack{suffix}"
    makers = {
        ".json": our_json,
        ".npy": text(saved(PROBS)),
        ".npz": npz,
        ".safetensors": safetensors,
        ".parquet": parquet,
    }
    makers.get(suffix, run_folder)(path)
    outcome = run_bounded(lambda: read_everything(path))
    outcome.require_bounds()
    assert outcome.error is None, outcome


def test_the_canary_sings(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary"))).close()
    assert (tmp_path / "canary").exists()
