"""Keeps what converters print, log and warn of off the user's terminal, for the time of a conversion."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Iterator

_one_at_a_time = threading.RLock()
"""Streams, loggers and filters belong to the process: a second silence would take the first one's for what was there."""


@contextlib.contextmanager
def quiet(*packages: str, level: int = logging.ERROR) -> Iterator[list[logging.Logger]]:
    """Silence standard output, standard error, warnings, and packages' loggers; put everything back, also after an error.

    Loggers say nothing below `level` meanwhile, and the handlers that are added to them or to the root go again. Another
    thread that asks for silence waits until the first has put everything back.

    Args:
        packages: Names of packages whose loggers, and those below them, are silenced.
        level: The lowest level that they still log.

    Yields:
        These loggers. Their levels, handlers and propagation can be changed further, and are put back at the end.
    """
    with (
        _one_at_a_time,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        # Children, too: some have levels of their own, so that the parent's does not reach them.
        names = {*packages, *(n for n in logging.root.manager.loggerDict if n.partition(".")[0] in packages)}
        loggers = [logging.getLogger(name) for name in names]
        before = [
            (logger, logger.level, logger.propagate, list(logger.handlers)) for logger in (*loggers, logging.root)
        ]
        try:
            for logger in loggers:
                logger.setLevel(level)
            yield loggers
        finally:
            for logger, level_before, propagate, handlers in before:
                logger.setLevel(level_before)
                logger.propagate = propagate
                logger.handlers[:] = handlers
