"""``tuning=`` of an earlier run: its result's record says how it was cut and spread."""

from __future__ import annotations

import os
from dataclasses import replace

from ..contracts.options import RunOptions
from ..errors import FoOnnxError, OptionError
from ..store import load


def with_tuning_of_result(run: RunOptions) -> RunOptions:
    """Return the options with the tuning that a result records in the place of the result's path, if one is given.

    Raises:
        StoreError: There is no such result, or it cannot be read.
        OptionError: Its record does not say how its run was cut and spread.
    """
    if not isinstance(run.tuning, str | os.PathLike):
        return run
    path = os.fspath(run.tuning)
    try:
        record = load(path).meta
    except FoOnnxError as err:
        err.add_note(
            "tuning= names the result of an earlier run, or is the object that its meta['engine']['tuning'] holds."
        )
        raise
    tuning = (record.get("engine") or {}).get("tuning")
    try:
        # Another fo-onnx may have recorded a text.
        return replace(run, tuning=tuning if isinstance(tuning, dict) else {})
    except OptionError as err:
        raise OptionError(f"the record of {path} does not say how its run was cut: {err}") from err
