"""Hostile files of rows, labels, ids, images and parameters: each ends in an error that names the file, soon and within bounds."""

from __future__ import annotations

import io
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bounded import run_bounded
from PIL import Image

from fo_onnx.cli.shared.data import load_ids
from fo_onnx.cli.shared.models import load_params
from fo_onnx.contracts.options import DataOptions
from fo_onnx.sources import ImageFolder, open_source
from fo_onnx.sources.labels import read_labels

Attack = Callable[[Path], Any]
CANARY = "sprung"


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return Path.touch, (self.folder / CANARY,)


def objects(path: Path) -> None:
    save = np.savez if path.suffix == ".npz" else np.save
    save(path, np.array([Trap(path.parent)], dtype=object))


def npy_bytes(shape: object, body: bytes = b"", descr: str = "'<f4'") -> bytes:
    return npy_of(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", body)


def npy_of(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body


def npy(shape: object, body: bytes = bytes(64), descr: str = "'<f4'") -> Attack:
    return lambda path: path.write_bytes(npy_bytes(shape, body, descr))


def npz(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Attack:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, data in members:
                archive.writestr(name, data)

    return write


def npz_bomb(path: Path) -> None:
    """256 MB of zeros in 260 kB."""
    npz(("x.npy", npy_bytes((2**16, 2**10), bytes(2**28))))(path)


def npz_that_lies(path: Path) -> None:
    """The directory says that a member of 512 MB has 64 bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("x.npy", npy_bytes((2**27,), bytes(2**27)))
    content = data.getvalue()
    size = struct.pack("<I", len(npy_bytes((2**27,), bytes(2**27))))
    path.write_bytes(content.replace(size, struct.pack("<I", 64)))


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**32)


def unix_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path may be longer than that of a socket
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


def written(content: str | bytes) -> Attack:
    data = content.encode() if isinstance(content, str) else content
    return lambda path: path.write_bytes(data)


def parquet(path: Path) -> bytes:
    pq.write_table(pa.table({"x": [1.0] * 100, "label": [1] * 100}), path)
    return path.read_bytes()


def footer(change: Callable[[bytes], bytes]) -> Attack:
    """A sound file with another footer."""

    def write(path: Path) -> None:
        content = parquet(path)
        length = int.from_bytes(content[-8:-4], "little")
        changed = change(content[-8 - length : -8])
        path.write_bytes(content[: -8 - length] + changed + struct.pack("<I", len(changed)) + b"PAR1")

    return write


def footer_length(path: Path) -> None:
    path.write_bytes(parquet(path)[:-8] + b"\xff\xff\xff\x7fPAR1")


def rows_that_are_none(path: Path) -> None:
    """The footer's sum of rows is another one than that of its row groups."""
    footer(lambda data: data.replace(b"\xc8\x01", b"\xc8\x7f", 1))(path)


def wide_zeros(path: Path) -> None:
    """2^25 zeros in one row."""
    values = pa.array(np.zeros(2**25, np.float32))
    pq.write_table(pa.table({"x": pa.FixedSizeListArray.from_arrays(values, 2**25)}), path, compression="zstd")


def many_labels(path: Path) -> None:
    """10^7 labels, all alike, beside rows that are empty."""
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**7, np.int8)), pa.array(["a"]))
    pq.write_table(pa.table({"x": pa.nulls(10**7, pa.float32()), "label": values}), path, row_group_size=10**7)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(path: Path) -> None:
    """15,000 by 15,000 zeros."""
    packer = zlib.compressobj(1)
    row = bytes(15_001)
    data = b"".join([packer.compress(row) for _ in range(15_000)]) + packer.flush()
    head = struct.pack(">IIBBBBB", 15_000, 15_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def png_text_bomb(path: Path) -> None:
    """A comment of 100 MB in 100 kB."""
    packer = zlib.compressobj(9)
    data = b"".join([packer.compress(bytes(2**20)) for _ in range(100)]) + packer.flush()
    head = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"zTXt", b"a\0\0" + data) + chunk(b"IEND", b"")
    )


def long_png(path: Path) -> None:
    """One pixel high, so that resizing it to a height of 256 makes 2.6 * 10^9 pixels."""
    Image.new("L", (40_000, 1)).save(path)


def tiff(*entries: tuple[int, int, int, int], big: bool = False) -> Attack:
    """Tags as (number, type, count, value)."""

    def write(path: Path) -> None:
        tags = b"".join(struct.pack("<HHII", *entry) for entry in entries)
        path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(4))

    return write


def jpeg_cut(path: Path) -> None:
    Image.fromarray((np.random.default_rng(0).random((64, 64, 3)) * 255).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:900])


def safetensors(header: bytes) -> Attack:
    return written(struct.pack("<Q", len(header)) + header)


EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\n(hello) print\nshowpage\n%%EOF\n"
DEEP = "[" * 100_000 + "]" * 100_000
SIZE = [(256, 4, 1, 2**16), (257, 4, 1, 2**16), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 4)]
ATTACKS: dict[str, tuple[str, Attack]] = {
    "rows: objects": ("x.npy", objects),
    "rows: objects in a container": ("x.npz", objects),
    "rows: a shape of 2^70": ("x.npy", npy((2**70, 3))),
    "rows: 2^70 beside 0": ("x.npy", npy((0, 2**70))),
    "rows: a negative shape": ("x.npy", npy((-4, -4))),
    "rows: a shape of truth values": ("x.npy", npy((True, 3))),
    "rows: a shape of 10^12": ("x.npy", npy((10**12,))),
    "rows: a header of minus signs": ("x.npy", written(npy_of("-" * 5000 + "1"))),
    "rows: a header of brackets": ("x.npy", written(npy_of("(" * 500))),
    "rows: a type of 2^40 numbers": ("x.npy", npy((4,), descr=f"('<f4', ({2**40},))")),
    "rows: a pipe": ("x.npy", os.mkfifo),
    "rows: /dev/zero": ("x.npy", zeros),
    "rows: zeros that unfold a thousandfold": ("x.npz", npz_bomb),
    "rows: a directory that lies": ("x.npz", npz_that_lies),
    "rows: a shape of 2^70 in a container": ("x.npz", npz(("x.npy", npy_bytes((2**70, 3))))),
    "rows: a method that numpy never uses": (
        "x.npz",
        npz(("x.npy", npy_bytes((16,), bytes(64))), method=zipfile.ZIP_LZMA),
    ),
    "rows: a member that is text": ("x.npz", npz(("x.txt", b"x" * 1000))),
    "rows: a container that is a pipe": ("x.npz", os.mkfifo),
    "rows: a Parquet pipe": ("x.parquet", os.mkfifo),
    "rows: Parquet of /dev/zero": ("x.parquet", zeros),
    "rows: Parquet of holes": ("x.parquet", holes),
    "rows: a footer of 2 GB": ("x.parquet", footer_length),
    "rows: a footer of structs in structs": ("x.parquet", footer(lambda data: b"\x1c" * 100_000)),
    "rows: a footer of lists in lists": ("x.parquet", footer(lambda data: b"\x19" + b"\xf9\xff\xff\xff\x0f" * 20_000)),
    "rows: rows that are none": ("x.parquet", rows_that_are_none),
    "rows: Parquet of text": ("x.parquet", written("PAR1" * 1000)),
    "rows: a row of 2^25 zeros": ("x.parquet", wide_zeros),
    "rows: 10^7 equal labels": ("x.parquet", many_labels),
    "labels: lists in lists": ("y.json", written(DEEP)),
    "labels: a number of 100,000 digits": ("y.json", written(f"[{'9' * 100_000}]")),
    "labels: a number of 5,000 digits in text": ("y.txt", written("9" * 5000)),
    "labels: a number of 20 digits": ("y.txt", written("9" * 20)),
    "labels: a field of 10^6 letters": ("y.csv", written('"' + "x" * 10**6 + '"')),
    "labels: a NUL": ("y.csv", written("a\nb\n\0c,d\n")),
    "labels: no UTF-8": ("y.txt", written(b"\xff\xfe\xfd")),
    "labels: half a character": ("y.json", written('["\\ud800", "b"]')),
    "labels: objects": ("y.npy", objects),
    "labels: a pipe": ("y.txt", os.mkfifo),
    "labels: holes": ("y.txt", holes),
    "labels: /dev/zero": ("y.json", zeros),
    "labels: NaN": ("y.json", written("[NaN, 1]")),
    "ids: lists in lists": ("i.json", written(DEEP)),
    "ids: 2^70": ("i.json", written(f"[{2**70}, 1]")),
    "ids: half a character": ("i.json", written('["\\ud800", "b"]')),
    "ids: one twice": ("i.txt", written("a\na\n")),
    "ids: objects": ("i.npy", objects),
    "ids: a pipe": ("i.csv", os.mkfifo),
    "ids: holes": ("i.json", holes),
    "ids: holes in an array": (
        "i.npy",
        lambda p: (npy((2**29,), descr="'<i8'")(p), os.truncate(p, 2**32 + 2**10)),
    ),
    "image: PostScript": ("a.png", written(EPS)),
    "image: PDF": ("a.tif", written("%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF\n")),
    "image: a pipe": ("a.png", os.mkfifo),
    "image: a socket": ("a.png", unix_socket),
    "image: /dev/zero": ("a.jpg", zeros),
    "image: a link to nowhere": ("a.jpg", lambda p: p.symlink_to("nowhere")),
    "image: a link to itself": ("a.jpg", lambda p: p.symlink_to(p.name)),
    "image: 15,000 by 15,000": ("a.png", png_bomb),
    "image: a comment of 100 MB": ("a.png", png_text_bomb),
    "image: one pixel high": ("a.png", long_png),
    "image: a GIF of 65,535 by 65,535": ("a.gif", written(b"GIF89a\xff\xff\xff\xff\0\0\0;")),
    "image: a bitmap of negative size": (
        "a.bmp",
        written(b"BM" + struct.pack("<IIIIiiHH", 70, 0, 54, 40, -9, -9, 1, 24)),
    ),
    "image: a map of 10^9 by 10^9": ("a.pgm", written(b"P5 1000000000 1000000000 255\n" + bytes(64))),
    "image: a TIFF of 2^32 pixels": ("a.tif", tiff(*SIZE)),
    "image: a tag of 4 GB": ("a.tif", tiff((256, 4, 2**30, 8), *SIZE[1:])),
    "image: tags of odd types": ("a.tif", tiff(*((n, 99, c, v) for n, _, c, v in SIZE))),
    "image: a table of tags that is its own next": (
        "a.tif",
        written(b"II*\0" + struct.pack("<IH", 8, 0) + struct.pack("<I", 8)),
    ),
    "image: cut short": ("a.jpg", jpeg_cut),
    "params: objects": ("p.npz", objects),
    "params: zeros that unfold a thousandfold": ("p.npz", npz_bomb),
    "params: a name within a name": (
        "p.npz",
        npz(("a.npy", npy_bytes((1,), bytes(4))), ("a.b.npy", npy_bytes((1,), bytes(4)))),
    ),
    "params: a header of objects in objects": ("p.safetensors", safetensors(b'{"a":' * 60_000)),
    "params: a tensor of 2^70": (
        "p.safetensors",
        safetensors(b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,4]}}' % 2**70),
    ),
    "params: a header of 2^60 bytes": ("p.safetensors", written(struct.pack("<Q", 2**60) + b"{}")),
    "params: a pipe": ("p.safetensors", os.mkfifo),
    "params: holes": ("p.safetensors", holes),
}


def read_rows(path: Path) -> None:
    list(open_source(path, DataOptions()).batches(64))


def read_image(path: Path) -> None:
    """With ids of their own, which do not name the file."""
    list(open_source(ImageFolder(path.parent, resize=256), DataOptions(ids=[7])).batches(1))


READERS: dict[str, Callable[[Path], Any]] = {
    "rows": read_rows,
    "labels": lambda p: read_labels(p),
    "ids": load_ids,
    "image": read_image,
    "params": lambda p: load_params(os.fspath(p)),
}


@pytest.mark.parametrize("what", ATTACKS)
def test_a_hostile_data_file_is_refused(tmp_path: Path, what: str) -> None:
    name, attack = ATTACKS[what]
    path = tmp_path / "data" / name
    path.parent.mkdir()
    attack(path)

    run_bounded(lambda: READERS[what.split(":")[0]](path)).require_refusal(path)

    assert not list(tmp_path.rglob(CANARY))


@pytest.mark.parametrize("write", [many_labels, wide_zeros, npz_bomb], ids=lambda f: f.__name__)
def test_what_is_refused_is_read_once_the_limit_is_raised(
    tmp_path: Path, write: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way out that the message offers is open."""
    path = tmp_path / ("x.npz" if write is npz_bomb else "x.parquet")
    write(path)
    monkeypatch.setenv("FO_ONNX_MAX_UNFOLD", str(10**9))

    outcome = run_bounded(lambda: open_source(path, DataOptions()), gigabytes=4)

    assert (outcome.error, outcome.ended) == (None, None), outcome


def test_a_long_label_does_not_widen_the_others(tmp_path: Path) -> None:
    """As numpy's text, a million labels would each take the room of the longest, which has a million letters."""
    path = tmp_path / "y.txt"
    path.write_text("x" * 10**6 + "\n" + "a\n" * 10**6)

    run_bounded(lambda: read_labels(path)).require_bounds()


def test_a_long_text_in_each_row_of_parquet_is_held_once(tmp_path: Path) -> None:
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int8)), pa.array(["x" * 10**6]))
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": np.arange(10_000.0), "label": text}), path)

    run_bounded(lambda: read_rows(path)).require_bounds()
