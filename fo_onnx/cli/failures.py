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

from ..errors import FallbackWarning, FoOnnxError
from .output import JSON, print_json

FAILED = 1
INTERRUPTED = 130
DEBUG, COMMAND = "fo_onnx.debug", "fo_onnx.command"
"""Keys of the context's meta, set by `fo_onnx.cli.options.common`."""


@contextlib.contextmanager
def as_lines(ctx: click.Context) -> Iterator[None]:
    """Runs a command: its errors, warnings and log records become lines, and its errors an exit code.

    Raises:
        click.exceptions.Exit: With code 1 after an error, 130 after Ctrl-C.
    """
    with _warnings(ctx), _log(ctx):
        try:
            yield
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise
        except KeyboardInterrupt as err:
            first, *rest = [*_notes(ctx, err), ""]
            _fail(ctx, err, f"interrupted. {first}".rstrip(), list(filter(None, rest)), INTERRUPTED)
        except FoOnnxError as err:
            _fail(ctx, err, in_words_of(ctx.meta.get(COMMAND), str(err)), _notes(ctx, err), FAILED)
        except Exception as err:
            first = (str(err).strip().splitlines() or [""])[0]
            said = f"unexpected {type(err).__name__}: {first}".rstrip(": ")
            _fail(ctx, err, f"{said}. --debug shows where it came from.", _notes(ctx, err), FAILED)


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
        click.echo("".join(traceback.format_exception(err)).rstrip(), err=True)
    click.echo(f"fo-onnx: {'' if code == INTERRUPTED else 'error: '}{message}", err=True)
    for note in notes:
        click.echo(f"fo-onnx: {note}", err=True)
    if ctx.meta.get(JSON):
        print_json({"error": {"type": type(err).__name__, "message": message, "notes": notes}})
    ctx.exit(code)


def _notes(ctx: click.Context, err: BaseException) -> list[str]:
    return [in_words_of(ctx.meta.get(COMMAND), note) for note in getattr(err, "__notes__", [])]


@contextlib.contextmanager
def _warnings(ctx: click.Context) -> Iterator[None]:
    with warnings.catch_warnings():
        show = warnings.showwarning

        def line(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, FallbackWarning):
                click.echo(f"fo-onnx: warning: {in_words_of(ctx.meta.get(COMMAND), str(message))}", err=True)
            else:
                show(message, category, *rest, **more)

        warnings.simplefilter("always", FallbackWarning)
        warnings.showwarning = line
        yield


class _Lines(logging.Handler):
    """Log records of fo-onnx as lines on what standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"fo-onnx: {record.levelname.lower()}: {record.getMessage()}", err=True)


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
