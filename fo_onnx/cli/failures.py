"""What goes wrong in a command, as lines on standard error and an exit code."""

from __future__ import annotations

import contextlib
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from .. import command_start
from ..command_start import INTERRUPTED
from ..errors import FallbackWarning, FoOnnxError
from ..printable import escaped
from ..signals import SignalGuard, one_interrupt
from .output import JSON, print_json, say

FAILED = 1
DEBUG, COMMAND = "fo_onnx.debug", "fo_onnx.command"
"""Keys of the context's meta, set by `fo_onnx.cli.options.common`."""


@contextlib.contextmanager
def as_lines(ctx: click.Context) -> Iterator[None]:
    """Runs a command: its errors, warnings and log records become lines, and its errors an exit code.

    Raises:
        click.exceptions.Exit: With code 1 after an error, 130 after Ctrl-C, SIGTERM or SIGHUP.
    """
    with one_interrupt(like_ctrl_c=True) as guard, _warnings(ctx), _log(ctx), escaped_usage():
        try:
            yield
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt as err:
            _interrupted(ctx, err, guard)
        except FoOnnxError as err:
            if (interrupt := _interrupt_behind(err)) is not None:
                _interrupted(ctx, interrupt, guard)
            _fail(ctx, err, in_words_of(ctx.meta.get(COMMAND), str(err)), _notes(ctx, err), FAILED)
        except Exception as err:
            if (interrupt := _interrupt_behind(err)) is not None:
                _interrupted(ctx, interrupt, guard)
            first = (str(err).strip().splitlines() or [""])[0]
            said = f"unexpected {type(err).__name__}: {first}".rstrip(": ")
            _fail(ctx, err, f"{said}. --debug shows where it came from.", _notes(ctx, err), FAILED)


def _interrupted(ctx: click.Context, err: KeyboardInterrupt, guard: SignalGuard) -> NoReturn:
    if command_start.COMMAND:
        # Who presses twice must not get a traceback after the line.
        guard.ignore_afterwards()
    first, *rest = [*_notes(ctx, err), ""]
    _fail(ctx, err, f"interrupted. {first}".rstrip(), list(filter(None, rest)), INTERRUPTED)


def _interrupt_behind(err: BaseException) -> KeyboardInterrupt | None:
    """The interrupt that an error came of, as where an extension module was being imported and says that it failed."""
    cause = err.__cause__ or err.__context__
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause


@contextlib.contextmanager
def escaped_usage() -> Iterator[None]:
    """Escapes what click says of wrong usage: it repeats arguments, which a shell may have taken from names of files."""
    try:
        yield
    except click.ClickException as err:
        vars(err)["message"] = escaped(err.message)  # final for those who write classes, not for one error
        raise


def in_words_of(command: click.Command | None, message: str) -> str:
    """A message of the library with its keyword arguments written as the command's options.

    ``on_error='skip'`` becomes ``--on-error skip``, and ``overwrite=True (--overwrite)`` becomes ``--overwrite``.
    """
    flags = {p.name: max(p.opts, key=len) for p in (command.params if command else []) if isinstance(p, click.Option)}
    if not flags:
        return message

    def option(match: re.Match[str]) -> str:
        flag, value = flags[match[1]], match[2] or ""
        if value in ("", "True", "…"):
            return flag
        if value == "False":
            return f"no {flag}"
        return f"{flag} {value.strip(chr(39)) if value[0] == chr(39) else value}"

    names = "|".join(map(re.escape, flags))
    said = re.sub(rf"\b({names})=('[^']*'|\[[^]]*\]|…|[\w.:+-]*\w)?", option, message)
    return re.sub(r"(--[\w-]+) \(\1[^)]*\)", r"\1", said)


def _fail(ctx: click.Context, err: BaseException, message: str, notes: list[str], code: int) -> NoReturn:
    if ctx.meta.get(DEBUG):
        click.echo(_traceback_text(err), err=True)
    say(f"{'' if code == INTERRUPTED else 'error: '}{message}")
    for note in notes:
        say(note)
    if ctx.meta.get(JSON):
        print_json({"error": {"type": type(err).__name__, "message": message, "notes": notes}})
    ctx.exit(code)


def _traceback_text(err: BaseException) -> str:
    """A traceback, in which what an exception says is one line."""
    # Lines of code begin with spaces, and those between an error and its cause with a newline.
    parts = (
        p if p[:1] in (" ", "\n") else f"{escaped(p.removesuffix(chr(10)))}\n" for p in traceback.format_exception(err)
    )
    return escaped("".join(parts).rstrip(), keep_newlines=True)


def _notes(ctx: click.Context, err: BaseException) -> list[str]:
    return [in_words_of(ctx.meta.get(COMMAND), note) for note in getattr(err, "__notes__", [])]


@contextlib.contextmanager
def _warnings(ctx: click.Context) -> Iterator[None]:
    with warnings.catch_warnings():
        show = warnings.showwarning

        def line(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, FallbackWarning):
                say(f"warning: {in_words_of(ctx.meta.get(COMMAND), str(message))}")
            else:
                show(escaped(message), category, *rest, **more)

        warnings.simplefilter("always", FallbackWarning)
        warnings.showwarning = line
        yield


class _Lines(logging.Handler):
    """Log records of fo-onnx as lines on what standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"{record.levelname.lower()}: {record.getMessage()}")


@contextlib.contextmanager
def _log(ctx: click.Context) -> Iterator[None]:
    log = logging.getLogger("fo_onnx")
    level, handler = log.level, _Lines()
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
