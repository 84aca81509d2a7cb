"""Steps are said on a terminal, and in the log always."""

from __future__ import annotations

import io
import logging
import sys

import numpy as np
import pytest
from array_framework import Pair, pairs

import fo_onnx as fo
from fo_onnx.control.announcing import announce

__all__ = ["pairs"]
X = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "show", "is_shown"),
    [
        (Terminal(), None, True),
        (Terminal(), False, False),
        (io.StringIO(), None, False),
        (io.StringIO(), True, True),
    ],
)
def test_a_step_is_shown_on_a_terminal(
    stream: io.StringIO,
    show: bool | None,
    is_shown: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with caplog.at_level(logging.INFO, "fo_onnx.engine"):
        announce("exporting Net", show)
    assert stream.getvalue() == ("fo-onnx: exporting Net …\n" if is_shown else "")
    assert [r.getMessage() for r in caplog.records] == ["exporting Net"]


def test_names_cannot_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    announce("exporting \x1b[2J")
    assert "\x1b" not in stream.getvalue()


@pytest.mark.usefixtures("pairs")
def test_a_run_says_what_it_does_before_its_first_row(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    fo.generate(Pair(), X)
    new, _, bar = stream.getvalue().partition("fo-onnx: comparing Pair with its export on 256 rows …\n")
    assert new == "fo-onnx: exporting Pair from pair to ONNX …\n"
    assert "600/600" in bar
    stream.truncate(0)
    stream.seek(0)
    fo.generate(Pair(), X)
    assert stream.getvalue().startswith("fo-onnx: comparing Pair with its cached export on 256 rows …\n")
    # Nothing in a file or on a pipe.
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    fo.generate(Pair(), X)
    assert pipe.getvalue() == ""
