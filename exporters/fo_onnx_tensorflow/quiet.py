"""Silence for TensorFlow and tf2onnx: what they print, log and warn of; errors that they log are collected."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from fo_onnx.plugin_kit.quiet import quiet as silence

_CONVERTER = "tf2onnx"
_LOGGERS = (_CONVERTER, "tensorflow", "absl")
_STDERR = 2
_TENSORFLOWS_LINES = re.compile(
    rb"(?:[IWE]\d{4} \d\d:\d\d:|WARNING: All log messages before absl::|To enable the following instructions:"
    rb"|\d{4}-\d\d-\d\d [\d:.]+: [IWE] )"
)
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


class Records(logging.Handler):
    """Records of what tf2onnx logs as errors: it continues after a node that it could not convert, and says so only here.

    Attributes:
        failures: Nodes whose conversion raised: the node's name and the exception.
        messages: Everything else.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.failures: list[tuple[str, BaseException]] = []
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if error is not None and isinstance(record.args, tuple) and record.args:
            self.failures.append((str(record.args[0]), error))
        else:
            self.messages.append(record.getMessage())


@contextlib.contextmanager
def quiet() -> Iterator[Records]:
    """Silence TensorFlow and tf2onnx until the context ends, as `fo_onnx.plugin_kit.quiet.quiet` does, and past Python, too.

    Yields:
        What tf2onnx logs as errors meanwhile.
    """
    records = Records()
    sys.stderr.flush()
    with silence(*_LOGGERS) as loggers, _own_lines_off_stderr(), _environment_restored():
        for logger in loggers:
            # Children hand on to their parents; only those at the top have somewhere to put it.
            logger.propagate = logger.name not in _LOGGERS
            logger.handlers[:] = [] if logger.propagate else [logging.NullHandler()]
        logging.getLogger(_CONVERTER).addHandler(records)
        yield records


@contextlib.contextmanager
def _own_lines_off_stderr() -> Iterator[None]:
    """Take TensorFlow's own lines out of what the process writes to standard error.

    Its C++ part writes past Python. What others wrote meanwhile follows when the context ends.
    """
    try:
        terminal = os.dup(_STDERR)
    except OSError:  # a process without standard error
        yield
        return
    with tempfile.TemporaryFile() as caught:
        # The descriptor is replaced, not Python's stream: C++ knows only the former.
        os.dup2(caught.fileno(), _STDERR)
        try:
            yield
        finally:
            os.dup2(terminal, _STDERR)
            os.close(terminal)
            caught.seek(0)
            for line in caught:
                if not _TENSORFLOWS_LINES.match(line):
                    os.write(_STDERR, line)


@contextlib.contextmanager
def _environment_restored() -> Iterator[None]:
    # tf2onnx sets it when it is imported, for the whole process and its children.
    before = os.environ.get(_LOG_LEVEL)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_LOG_LEVEL, None)
        else:
            os.environ[_LOG_LEVEL] = before
