"""Silence for the time of a conversion: nothing reaches the terminal, and everything is as it was afterwards."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from fo_onnx.plugin_kit.quiet import quiet


@pytest.fixture
def loggers() -> Iterator[tuple[logging.Logger, logging.Logger]]:
    """A package's logger and that of a module within it, which has a level of its own."""
    package, module = logging.getLogger("chatty"), logging.getLogger("chatty.module")
    package.setLevel(logging.INFO)
    module.setLevel(logging.DEBUG)
    yield package, module
    for logger in (package, module):
        logger.setLevel(logging.NOTSET)


def speak() -> None:
    print("printed")
    print("printed as an error", file=sys.stderr)
    warnings.warn("warned", stacklevel=1)
    for name in ("chatty", "chatty.module"):
        logging.getLogger(name).warning("logged by %s", name)


def test_nothing_is_seen_or_logged(
    loggers: object, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with quiet("chatty"):
        speak()
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []
    with pytest.warns(UserWarning, match="warned"):
        speak()
    assert capfd.readouterr() == ("printed\n", "printed as an error\n")
    assert caplog.messages == ["logged by chatty", "logged by chatty.module"]


def test_other_loggers_and_higher_levels_speak(caplog: pytest.LogCaptureFixture) -> None:
    with quiet("chatty"):
        logging.getLogger("chatty.module").error("an error")
        logging.getLogger("chattier").warning("another package")
    with quiet("chatty", level=logging.CRITICAL):
        logging.getLogger("chatty.module").error("a second error")
    assert caplog.messages == ["an error", "another package"]


@pytest.mark.parametrize("error", [None, ValueError("in the conversion")])
def test_everything_is_put_back(loggers: tuple[logging.Logger, logging.Logger], error: Exception | None) -> None:
    def state() -> list[object]:
        found = [(x.level, x.propagate, list(x.handlers)) for x in (*loggers, logging.root)]
        return [*found, sys.stdout, sys.stderr, list(warnings.filters)]

    before = state()
    with contextlib.suppress(ValueError), quiet("chatty") as silenced:
        assert {logger.name for logger in silenced} == {"chatty", "chatty.module"}
        assert state() != before
        for logger in (*silenced, logging.root):
            logger.propagate = False
            logger.addHandler(logging.NullHandler())
            logger.setLevel(logging.FATAL)
        if error is not None:
            raise error
    assert state() == before


def test_a_second_thread_waits() -> None:
    inside: list[str] = []

    def second() -> None:
        with quiet():
            inside.append("second")

    stdout, thread = sys.stdout, threading.Thread(target=second)
    with quiet(), quiet():  # the same thread may ask again
        thread.start()
        time.sleep(0.1)
        inside.append("first")
    thread.join(10)
    assert inside == ["first", "second"]
    assert sys.stdout is stdout
