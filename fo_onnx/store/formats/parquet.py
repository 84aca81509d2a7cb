"""Parquet: the format for anything large, and of the shards of a run folder.

Fixed-size lists of float32, byte-stream-split and compressed with zstd, page checksums written and verified. The layout
was chosen by size, speed and by who can read it (pandas, polars, DuckDB, Hugging Face datasets).
# source: Apache Parquet format specification, Encodings.md (BYTE_STREAM_SPLIT, DELTA_BINARY_PACKED) and the CRC field
# of page headers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...distributions.columns import COLUMNS, Array, Columns, Layout, Rows, read_chunks
from ...distributions.ids import require_unique
from ...errors import StoreError
from ...guards.limits import check_unfolding
from ...guards.parquet_footer import read_groups
from ..files import OutputFile
from ..schema import META_KEY, decode_meta, encode_meta

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 16_384
GROUP_BYTES = 64 * 2**20
"""Above 1,024 classes a row group holds fewer rows, so that it never takes more memory than this."""
FREE_GROUP_BYTES = 8 * GROUP_BYTES
"""The size that any row group may decode to, however small the file is: rows that are all alike take next to no room."""
PartReader = Callable[[int, int, int], Columns]
_NAMES = {"ids": "id", "probs": "probs", "labels": "label", "logits": "logits"}


def group_rows(classes: int, most: int = GROUP_ROWS) -> int:
    """Return how many rows of `classes` float32 a row group holds."""
    return max(1, min(most, GROUP_BYTES // (4 * classes)))


class ParquetOutput:
    """Writes rows into an open file, one row group after another; holds at most one in memory.

    Args:
        file: The file.
        layout: Which columns there are.
        meta: Goes into the schema's metadata as JSON.
        rows_per_group: Rows per row group.
        on_group: Is given each row group once it is written.
    """

    def __init__(
        self,
        file: OutputFile,
        layout: Layout,
        meta: Mapping[str, Any],
        *,
        rows_per_group: int | None = None,
        on_group: Callable[[Columns], None] | None = None,
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._layout = layout
        self._size = rows_per_group or group_rows(layout.classes)
        self._on_group = on_group
        wide, ids = pa.list_(pa.float32(), layout.classes), pa.int64() if layout.id_kind == "int" else pa.string()
        types = {"ids": ids, "probs": wide, "labels": pa.int64(), "logits": wide}
        fields = [pa.field(_NAMES[c], types[c]) for c in layout.columns]
        self._schema = pa.schema(fields, metadata={META_KEY: encode_meta(meta, "Parquet")})
        # Bytes of the same weight lie together, and consecutive ids as differences: that is what zstd packs best.
        encodings = {f"{f.name}.list.element": "BYTE_STREAM_SPLIT" for f in fields if f.type == wide}
        encodings |= {f.name: "DELTA_BINARY_PACKED" for f in fields if f.type == pa.int64()}
        self._writer = pq.ParquetWriter(
            file,
            self._schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=False,
            column_encoding=encodings,
            write_statistics=["id"],
            write_page_checksum=True,
        )
        self._buffer = {c: layout.make_column(c, self._size) for c in layout.columns}
        self._filled = 0

    def add(self, columns: Columns) -> None:
        """Take rows, and copy them. Raises `StoreWriteError`."""
        arrays = {name: cast(Array, getattr(columns, name)) for name in self._buffer}
        start, total = 0, len(arrays["probs"])
        while start < total:
            count = min(total - start, self._size - self._filled)
            for name, buffer in self._buffer.items():
                buffer[self._filled : self._filled + count] = arrays[name][start : start + count]
            self._filled += count
            start += count
            if self._filled == self._size:
                self._write_group()

    def close(self) -> None:
        """Write what is left and the footer; the file is finished by its owner."""
        if self._filled:
            self._write_group()
        self._writer.close()

    def discard(self) -> None:
        """Give up; the file is discarded by its owner."""
        # Otherwise the writer would try to write a footer when it is collected.
        self._writer.is_open = False

    def _write_group(self) -> None:
        import pyarrow as pa

        # Arrow takes views of the buffer, and has written them before it is filled again.
        part = {name: buffer[: self._filled] for name, buffer in self._buffer.items()}
        arrays = [
            pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), self._layout.classes)
            if values.ndim == 2
            else pa.array(values, type=self._schema.field(_NAMES[name]).type)
            for name, values in part.items()
        ]
        batch = pa.record_batch(arrays, schema=self._schema)
        self._writer.write_batch(batch, row_group_size=self._size)
        self._filled = 0
        if self._on_group is not None:
            self._on_group(Columns(**part))


def write_result(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Write all rows. Raises `StoreWriteError`."""
    output = ParquetOutput(file, rows.layout, meta)
    try:
        for part in read_chunks(rows):
            output.add(part)
        output.close()
    except BaseException:
        output.discard()
        raise


def read_result(path: Path) -> tuple[Rows, dict[str, Any]]:
    """Return the rows, of which none is decoded yet, and meta. Raises `StoreError`; `FileRows` is the border."""
    rows = ParquetRows(path)
    return rows, rows.meta


class ParquetRows:
    """Rows of one file, which it holds open; decodes one row group at a time and keeps the last one.

    Raises `StoreError` for a file of another kind, or of a newer schema; what is damaged is left to the border, `reading`.
    """

    in_memory = False

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.where = str(path)
        self._file = pq.ParquetFile(path, page_checksum_verification=True)
        schema, footer = self._file.schema_arrow, self._file.metadata
        text = (schema.metadata or {}).get(META_KEY.encode())
        if text is None:
            raise StoreError(
                f"Reading {self.where}: a Parquet file without {META_KEY!r} in its schema's metadata, so none of "
                f"fo-onnx. Its columns: {', '.join(schema.names)}."
            )
        self.meta = decode_meta(text, self.where)
        classes, id_kind = _read_columns(schema, self.where)
        self.layout = Layout(classes, id_kind, "label" in schema.names, "logits" in schema.names)
        if id_kind == "str":
            # As a dictionary, ids take no more memory than the file has text for: one long text, said to be that of
            # every row, could fill it.
            self._file = pq.ParquetFile(path, metadata=footer, page_checksum_verification=True, read_dictionary=["id"])
        self.length = int(footer.num_rows)
        sizes = self._check_groups(path)
        self._starts = list(accumulate(sizes, initial=0))
        self.step = int(max(sizes, default=1)) or 1
        self._last: dict[str, tuple[int, Array]] = {}

    def _check_groups(self, path: Path) -> list[int]:
        """Return the rows of each group. Raises `StoreError` if one would be decoded to more memory than it may take."""
        file_bytes = path.stat().st_size
        values = {_NAMES[c]: self.layout.classes if c in ("probs", "logits") else 1 for c in self.layout.columns}
        sizes = []
        for number, group in enumerate(read_groups(path, StoreError)):
            wanted = 0
            for column in group.columns:
                if column.name not in values:
                    continue
                most = group.rows * values[column.name]
                if column.values > most:
                    raise ValueError(f"{column.values} values of {column.name} in a group of {group.rows} rows")
                # 8 bytes for an id or a label, 4 for a number, or what the pages unfold to.
                wanted += max(8 * group.rows, 4 * most, column.size_bytes)
            if wanted > FREE_GROUP_BYTES:
                check_unfolding(path, wanted, file_bytes, StoreError, f"row group {number} of a file")
            sizes.append(group.rows)
        if sum(sizes) != self.length:
            raise ValueError(f"{sum(sizes)} rows in its row groups, {self.length} in all")
        return sizes

    def read(self, start: int, stop: int, columns: Collection[str] = COLUMNS) -> Columns:
        """Decode the row groups that hold these rows, and of them only these columns."""
        wanted = [c for c in self.layout.columns if c in columns]
        return read_across(
            self._starts, start, stop, self.layout, wanted, lambda group, a, b: self._read_group(group, a, b, wanted)
        )

    def _read_group(self, group: int, start: int, stop: int, columns: list[str]) -> Columns:
        # The last group is remembered: rows are asked for one after another, and column by column.
        absent = [c for c in columns if c not in self._last or self._last[c][0] != group]
        if absent:
            table = self._file.read_row_group(group, columns=[_NAMES[c] for c in absent])
            decoded = {c: self._to_numpy(table.column(_NAMES[c]).combine_chunks(), c) for c in absent}
            expected = self._starts[group + 1] - self._starts[group]
            for name, values in decoded.items():
                if len(values) != expected:
                    raise ValueError(f"{len(values)} {name} in a group of {expected} rows")
                self._last[name] = (group, values)
        return Columns(**{c: self._last[c][1][start:stop] for c in columns})

    def _to_numpy(self, array: pa.Array, column: str) -> Array:
        wide = column in ("probs", "logits")
        values = array.flatten() if wide else array
        if array.null_count or values.null_count:
            raise ValueError(f"a {_NAMES[column]} is null; every row has one")
        if column == "ids" and self.layout.id_kind == "str":
            texts = cast(Array, values.dictionary.to_numpy(zero_copy_only=False))
            ids = cast(Array, texts[values.indices.to_numpy()])
            if len(texts) < len(ids):
                # They cannot all differ; copies of each could fill the memory.
                require_unique(ids, f"Reading {self.where}", StoreError)
            return ids
        plain = cast(Array, values.to_numpy(zero_copy_only=False))
        return plain.reshape(-1, self.layout.classes) if wide else plain


def read_across(
    starts: list[int], start: int, stop: int, layout: Layout, wanted: Collection[str], read_part: PartReader
) -> Columns:
    """Return rows ``start`` to ``stop − 1`` of parts that begin at these rows; the last of `starts` is the number of rows.

    `read_part` returns rows of a part, by its number and by positions in it.
    """
    numbers = range(bisect_right(starts, start) - 1, bisect_left(starts, stop)) if start < stop else ()
    parts = [read_part(i, max(start - starts[i], 0), min(stop, starts[i + 1]) - starts[i]) for i in numbers]
    if len(parts) == 1:
        return parts[0]
    joined = {c: [cast(Array, getattr(part, c)) for part in parts] for c in layout.columns if c in wanted}
    return Columns(**{c: np.concatenate(p) if p else layout.make_column(c, 0) for c, p in joined.items()})


def _read_columns(schema: pa.Schema, where: str) -> tuple[int, str]:
    """Return the number of classes and the kind of ids, from the columns' types."""
    import pyarrow as pa

    types = {f.name: f.type for f in schema}
    probs, ids = types.get("probs"), types.get("id")
    list_size = probs.list_size if probs is not None and pa.types.is_fixed_size_list(probs) else 0
    # Only the shape and the element's type count: other writers name the element otherwise.
    wide = all(
        t is not None and pa.types.is_fixed_size_list(t) and (t.list_size, t.value_type) == (list_size, pa.float32())
        for t in (probs, types.get("logits", probs))
    )
    fits = list_size > 0 and wide and types.get("label", pa.int64()) == pa.int64()
    kind = {pa.int64(): "int", pa.string(): "str", pa.large_string(): "str"}.get(ids)
    if not fits or kind is None:
        raise StoreError(
            f"Reading {where}: the columns are {', '.join(f'{n}: {t}' for n, t in types.items())}; expected were id "
            "(int64 or text), probs (fixed-size list of float32), and if they are there label (int64) and logits (as probs)."
        )
    return int(list_size), kind
