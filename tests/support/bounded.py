"""Calls in a process of their own that may take so much time and memory and no more: what a hostile file is read in."""

from __future__ import annotations

import errno
import gc
import os
import pickle
import resource
import select
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fo_onnx.errors import FoOnnxError

_SPARE_BYTES = 3 * 2**30
"""What the child may reserve beyond its bound before the system refuses, so that a reader that asks for too much is
measured, and the machine that runs the test is safe. Stacks of threads and arenas reserve memory that they never use."""


@dataclass(frozen=True)
class Outcome:
    """What came of a call.

    Attributes:
        error: The exception's kind, for example ``"StoreError"``; ``None`` where there was none.
        message: What it said.
        ours: Whether it is a `FoOnnxError`.
        starved: Whether it, or what caused it, is a refusal of memory or of room in a temporary file.
        ended: How the process ended where it did not come to an end by itself: a signal, or the time was up.
        seconds: Wall time.
        peak_bytes: The most memory that the call took beside what the process had before.
    """

    error: str | None = None
    message: str = ""
    ours: bool = False
    starved: bool = False
    ended: str | None = None
    seconds: float = 0.0
    peak_bytes: int = 0

    def require_refusal(self, path: Path | str, *, gigabytes: float = 1) -> None:
        """Fails unless the call raised an error of fo-onnx that names `path`, within its time and memory."""
        assert self.ended is None, self
        assert self.error is not None, f"{path} was accepted: {self}"
        assert self.ours, self
        assert Path(path).name in self.message, self
        self.require_bounds(gigabytes=gigabytes)

    def require_bounds(self, *, gigabytes: float = 1) -> None:
        """Fails where the call did not come to its end by itself, or took more memory."""
        assert self.ended is None, self
        assert not self.starved, f"more was asked for than there may be: {self}"
        assert self.peak_bytes <= gigabytes * 2**30, self


def run_bounded(function: Callable[[], Any], seconds: float = 10, gigabytes: float = 1) -> Outcome:
    """Calls `function` in a forked child that is ended when its time is up.

    Files that the child writes may take as much as its memory may, so that rows in a temporary file count too.

    Args:
        function: What is called; what it returns is dropped.
        seconds: Wall time.
        gigabytes: Memory beside what this process takes already; `Outcome.require_bounds` looks at it.
    """
    reader, writer = os.pipe()
    begin = time.monotonic()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of every fork of a process that has threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(reader)
        _run_child(function, writer, gigabytes)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], seconds)
        # The child writes once, at its end; closing the pipe without a word means that it died.
        text = b"".join(iter(lambda: os.read(reader, 65_536), b"")) if ready else b""
    finally:
        os.close(reader)
        if not text:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    elapsed = time.monotonic() - begin
    if text:
        return replace(pickle.loads(text), seconds=elapsed)
    return Outcome(seconds=elapsed, ended=f"signal {os.WTERMSIG(status)}" if ready else f"{seconds} seconds were up")


def _run_child(function: Callable[[], Any], writer: int, gigabytes: float) -> None:
    """Calls, writes the `Outcome` and ends the process, whatever happens."""
    # Garbage of the parent is left alone: a framework's objects crash where they are destroyed without its threads.
    gc.freeze()
    try:
        bound = int(gigabytes * 2**30)
        limit = _address_space() + bound + _SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_FSIZE, (bound, bound))
        # The highest mark is this process's own from here on, and not what its parent once took.
        Path("/proc/self/clear_refs").write_text("5")
        before = _status_bytes("VmRSS")
        try:
            function()
            outcome = Outcome()
        except BaseException as err:
            outcome = Outcome(
                error=type(err).__name__,
                message=str(err),
                ours=isinstance(err, FoOnnxError),
                starved=any(_is_refusal_of_room(e) for e in _causes(err)),
            )
        peak = _status_bytes("VmHWM") - before
        os.write(writer, pickle.dumps(replace(outcome, peak_bytes=peak)))
    finally:
        os._exit(0)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _status_bytes(name: str) -> int:
    """Returns a value of this process's status, such as ``VmHWM``, the most memory that it has taken."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_refusal_of_room(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno in (errno.ENOMEM, errno.EFBIG, errno.ENOSPC)
    )
