"""Writes a run, going on with what is there, and may kill itself at a given file operation. Run as a script.

Arguments: target, rows in all, the operation before which to die (0 for none).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np

from fo_onnx.contracts.batch import BadRow
from fo_onnx.store import RunFolder, ShardLimits, files

K, BATCH = 4, 16
SMALL = ShardLimits(size_bytes=60 * K * 4, group_rows=32)


def batch(start: int, rows: int) -> tuple[np.ndarray, ...]:
    """Rows that depend on their position alone; every 50th is bad."""
    positions = np.arange(start, min(start + BATCH, rows))
    raw = np.stack([np.random.default_rng(p).dirichlet(np.full(K, 0.4)) for p in positions]).astype(np.float32)
    good = positions % 50 != 49
    return positions, good, raw


def main() -> None:
    target, rows, deadly = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    count = 0

    def counted(original):
        def call(*args):
            nonlocal count
            count += 1
            if count == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args)

        return call

    for name in ("open", "write", "sync", "replace", "sync_folder", "remove", "remove_tree", "truncate", "make_folder"):
        setattr(files.operations, name, counted(getattr(files.operations, name)))
    folder = RunFolder.reopen(target, limits=SMALL) or RunFolder.create(target, {}, {}, overwrite=False, limits=SMALL)
    sink = folder.sink(classes=K, id_kind="int", labels=True, logits=False, on_error="record")
    print("started", folder.position, flush=True)
    for start in range(folder.position, rows, BATCH):
        ids, good, probs = batch(start, rows)
        bad = [BadRow(int(p), int(p), "bad") for p in ids[~good]]
        sink.append(ids[good], probs[good], ids[good] % K, None, bad)
    sink.commit({})
    print("operations", count, flush=True)


if __name__ == "__main__":
    main()
