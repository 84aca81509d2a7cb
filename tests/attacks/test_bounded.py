"""The bounds that hostile files are read in do bind."""

from __future__ import annotations

import os
import signal
import tempfile
import time

import pytest
from bounded import run_bounded

from fo_onnx.errors import StoreError


def refuse():
    raise StoreError("Reading x.json: no.")


def test_an_error_that_names_the_file_is_a_refusal():
    outcome = run_bounded(refuse)
    outcome.require_refusal("/somewhere/x.json")
    assert outcome.seconds < 5
    with pytest.raises(AssertionError):
        outcome.require_refusal("y.json")


def starve():
    try:
        raise MemoryError
    except MemoryError as err:
        raise StoreError("x") from err


def fill_a_file():
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, 2**31)


@pytest.mark.parametrize(
    "function",
    [
        lambda: None,
        lambda: 1 / 0,
        lambda: time.sleep(60),
        lambda: os.kill(os.getpid(), signal.SIGKILL),
        lambda: bytearray(2**40),
        lambda: bytearray(b"x") * 200_000_000,
        starve,
        fill_a_file,
    ],
    ids=["accepted", "another error", "too long", "dies", "asks for too much", "takes too much", "hidden", "a file"],
)
def test_everything_else_is_none(function):
    with pytest.raises(AssertionError):
        run_bounded(function, seconds=1, gigabytes=0.1).require_refusal("x", gigabytes=0.1)


def test_what_a_call_takes_is_measured():
    assert run_bounded(lambda: bytearray(b"x") * 100_000_000).peak_bytes > 90_000_000
    run_bounded(lambda: bytearray(b"x") * 100_000_000).require_bounds()
    with pytest.raises(AssertionError):
        run_bounded(lambda: bytearray(b"x") * 200_000_000).require_bounds(gigabytes=0.1)
