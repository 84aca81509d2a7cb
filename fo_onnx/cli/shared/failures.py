"""How a command fails: lines on standard error and an exit code."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from ...control import command_start
from ...control.command_start import INTERRUPTED
from ...control.signals import SignalGuard, one_interrupt
from ...errors import FallbackWarning, FoOnnxError, first_line
from ...guards.printable import escaped
from .output import COMMAND, DEBUG, FAILED, JSON, print_json, say


@contextlib.contextmanager
def as_lines(ctx: click.Context) -> Iterator[None]:
    """Run a command: its errors, warnings and log records become lines, and its errors an exit code.

    Raises:
        click.exceptions.Exit: With code 1 after an error, 130 after Ctrl-C, SIGTERM or SIGHUP.
    """
    # Each of these ends where the command ends, also if it fails.
    with one_interrupt(like_ctrl_c=True) as guard, _warnings(ctx), _log_records(), escape_usage():
        try:
            yield
        # Click prints its own errors, and a pipe that is closed is nobody's error.
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as err:
            _end(ctx, err, guard)


def _end(ctx: click.Context, err: BaseException, guard: SignalGuard) -> NoReturn:
    """Print what ended a command, with what can be done, and leave with the exit code."""
    # An interrupt may hide behind the error that it caused.
    interrupt = _interrupt_behind(err)
    if interrupt is not None and command_start.owns_process():
        # Whoever presses twice must not get a traceback after the line.
        guard.ignore_afterwards()
    err, command = interrupt or err, ctx.meta.get(COMMAND)
    notes = [in_options(command, note) for note in getattr(err, "__notes__", [])]
    if interrupt is not None:
        message = f"interrupted. {notes.pop(0)}" if notes else "interrupted."
    elif isinstance(err, FoOnnxError):
        message = in_options(command, str(err))
    else:
        message = f"unexpected {first_line(err)}. --debug shows where it came from."
    # Lines for people, and a document for machines.
    if ctx.meta.get(DEBUG):
        click.echo(_traceback_text(err), err=True)
    for line in (message if interrupt is not None else f"error: {message}", *notes):
        say(line)
    if ctx.meta.get(JSON):
        print_json({"error": {"type": type(err).__name__, "message": message, "notes": notes}})
    ctx.exit(FAILED if interrupt is None else INTERRUPTED)


def _interrupt_behind(err: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interrupt that an error is or came of: an extension module that is being imported says that it failed."""
    while err is not None and not isinstance(err, KeyboardInterrupt):
        err = err.__cause__ or err.__context__
    return err


@contextlib.contextmanager
def escape_usage() -> Iterator[None]:
    """Escape what click says of wrong usage: it repeats arguments, which a shell may have taken from names of files."""
    try:
        yield
    except click.ClickException as err:
        vars(err)["message"] = escaped(err.message)  # final for those who write classes, not for one error
        raise


PYTHON_ONLY = ("input_getter", "transform", "output_transform")
"""Arguments that are functions, which no option can give."""


def in_options(command: click.Command | None, message: str) -> str:
    """Return a message of the library with its keyword arguments written as the command's options.

    ``on_error='skip'`` becomes ``--on-error skip``, and ``overwrite=True (--overwrite)`` becomes ``--overwrite``.
    What only Python has is said to be so.
    """
    flags = {p.name: max(p.opts, key=len) for p in (command.params if command else []) if isinstance(p, click.Option)}
    if not flags:
        return message

    def to_option(match: re.Match[str]) -> str:
        flag, value = flags[match[1]], match[2] or ""
        if value in ("", "True", "…"):
            return flag
        if value == "False":
            return flags.get(f"no_{match[1]}", f"no {flag}")
        return f"{flag} {value.strip(chr(39)) if value[0] == chr(39) else value}"

    # The value is a quotation, a list or one word; what is said twice afterwards is said once.
    names = "|".join(map(re.escape, flags))
    text = re.sub(rf"\b({names})=('[^']*'|\[[^]]*\]|…|[\w.:+-]*\w)?", to_option, message)
    text = re.sub(r"(--[\w-]+) \(\1[^)]*\)", r"\1", text)
    functions = list(dict.fromkeys(re.findall(rf"\b({'|'.join(PYTHON_ONLY)})=", text)))
    if not functions:
        return text
    return (
        f"{text} Functions are given in Python: {' and '.join(f'{name}=' for name in functions)} of fo_onnx.generate."
    )


def _traceback_text(err: BaseException) -> str:
    """Return a traceback, in which an exception's message is one line."""
    # Lines of code begin with spaces, and those between an error and its cause with a newline.
    parts = traceback.format_exception(err)
    return "".join(escaped(p[:-1], keep_newlines=p[:1] in (" ", "\n")) + "\n" for p in parts).rstrip()


@contextlib.contextmanager
def _warnings(ctx: click.Context) -> Iterator[None]:
    with warnings.catch_warnings():
        show = warnings.showwarning

        def as_line(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, FallbackWarning):
                say(f"warning: {in_options(ctx.meta.get(COMMAND), str(message))}")
            else:
                show(escaped(message), category, *rest, **more)

        # The default shows a warning only once per line of code.
        warnings.simplefilter("always", FallbackWarning)
        warnings.showwarning = as_line
        yield


class _Lines(logging.Handler):
    """Prints log records of fo-onnx as lines on what standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


@contextlib.contextmanager
def _log_records() -> Iterator[None]:
    log = logging.getLogger("fo_onnx")
    level, handler = log.level, _Lines()
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
