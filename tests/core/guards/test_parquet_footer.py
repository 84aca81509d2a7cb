"""The footer of a Parquet file, as it is read without Arrow, says what Arrow says."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fo_onnx.distributions import Distributions
from fo_onnx.errors import StoreError
from fo_onnx.guards.parquet_footer import ColumnEntry, GroupEntry, read_groups
from fo_onnx.store import save


def nulls_of(statistics):
    return statistics.null_count if statistics is not None and statistics.has_null_count else None


def arrow_groups(path):
    """What pyarrow says of a sound file."""
    footer = pq.ParquetFile(path).metadata
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    return [
        GroupEntry(
            group.num_rows,
            tuple(
                ColumnEntry(
                    c.path_in_schema.split(".")[0], c.num_values, c.total_uncompressed_size, nulls_of(c.statistics)
                )
                for c in (group.column(i) for i in range(group.num_columns))
            ),
        )
        for group in groups
    ]


@pytest.mark.parametrize("rows", [0, 1, 40_000])
def test_ours(rows, tmp_path):
    probs = np.random.default_rng(0).dirichlet(np.ones(5), rows).astype(np.float32).reshape(rows, 5)
    ids = [f"i{i}" for i in range(rows)] if rows else None
    path = save(Distributions(probs, ids=ids, labels=np.zeros(rows, int), logits=probs), tmp_path / "d.parquet")
    assert read_groups(path, StoreError) == arrow_groups(path)
    assert sum(group.rows for group in read_groups(path, StoreError)) == rows


@pytest.mark.parametrize("version", ["1.0", "2.6"])
def test_every_kind_of_column(version, tmp_path):
    path = tmp_path / "d.parquet"
    columns = {
        "flag": pa.array([True, None, False]),
        "real": pa.array([1.5, None, 2.0]),
        "text": pa.array(["a", "b", None]),
        "when": pa.array([1, 2, 3], pa.timestamp("us", tz="UTC")),
        "price": pa.array([1, 2, 3]).cast(pa.decimal128(22, 3)),
        "deep": pa.array([[{"a": [1]}], None, []], pa.list_(pa.struct({"a": pa.list_(pa.int8())}))),
        "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int32())),
    }
    table = pa.table({f"{name}{i}": values for i in range(5) for name, values in columns.items()})
    pq.write_table(table, path, version=version, row_group_size=2, sorting_columns=[pq.SortingColumn(0)])
    assert read_groups(path, StoreError) == arrow_groups(path)
