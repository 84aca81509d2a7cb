"""Processes that die at a chosen call into the file room."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

from fo_onnx.store import files

DIED = 9
CALLS = ("open", "write", "sync", "replace", "make_folder", "remove", "remove_folder")


def survives(step: int, act: Callable[[], object]) -> bool:
    """Act in a child process that dies at call number `step` into the operating system; return whether it did not get there."""
    child = os.fork()
    if child == 0:
        try:
            _die_at(step)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, DIED), f"the child failed at step {step}"
    return code == 0


def _die_at(step: int) -> None:
    calls = itertools.count()

    def dying(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if next(calls) == step:
                os._exit(DIED)
            return original(*arguments)

        return call

    for name in CALLS:
        setattr(files.operations, name, dying(getattr(files.operations, name)))
