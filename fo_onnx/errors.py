"""The errors that fo-onnx raises, in one tree, so that a caller can catch as much or as little as needed.

::

    FoOnnxError
    ├── ExportError        the model could not be converted (names the operator or the line)
    ├── ParityError        converted, but not the same
    ├── ModelError         a file or object that is no usable classifier
    │   └── ModelNotFoundError
    ├── OutputError        an output that is no distribution, or ambiguous
    ├── DeviceError        what was asked for is not there (names the library or lists the devices)
    ├── DataError          a row or a dataset (names the id)
    │   ├── DataNotFoundError
    │   └── RowNotFoundError
    ├── RunError           the model failed, or took too long, while rows were run
    ├── StoreError         a file of results
    │   ├── StoreNotFoundError, StoreExistsError, StoreWriteError
    │   └── ResumeError    a run that does not fit the one begun (names what differs: old, new)
    ├── OptionError        an argument that is no valid choice
    ├── TrustError         would run foreign code; names the opt-in
    └── PluginError        a missing extra (gives the pip command) or a broken plugin

Each also is the built-in error that fits. A message says what was being done, what was found, what was expected and
what to do next.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from .guards.printable import escaped

LONGEST_LINE = 600
"""Characters of another package's message that are passed on."""
# Context managers put a frame of contextlib between two of this package.
_PASSED_OVER = (str(Path(__file__).parent), contextlib.__file__)


class FoOnnxError(Exception):
    """The root of every error that fo-onnx raises on purpose."""

    def __str__(self) -> str:
        # KeyError and OSError format their arguments in their own ways; the message is always the first argument here.
        # It names what comes from files of others, which must not steer the terminal that the error ends up on.
        return escaped(self.args[0]) if self.args else ""


class ExportError(FoOnnxError, RuntimeError):
    """The model could not be converted to ONNX."""


class ParityError(FoOnnxError, RuntimeError):
    """The converted model does not give the same distributions as the original."""


class ModelError(FoOnnxError, ValueError):
    """A file or an object that is no usable classifier."""


class ModelNotFoundError(ModelError, FileNotFoundError):
    """No model at the given place."""


class OutputError(FoOnnxError, ValueError):
    """A model output that is no class distribution, or that could mean several things."""


class DeviceError(FoOnnxError, RuntimeError):
    """A device or provider that is not there."""


class DataError(FoOnnxError, ValueError):
    """A dataset, or a row of it, that cannot be used.

    Attributes:
        position: The row's position in the source, counted from 0, if one row is at fault.
    """

    def __init__(self, message: str, *, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class DataNotFoundError(DataError, FileNotFoundError):
    """No data at the given place."""


class RowNotFoundError(DataError, KeyError):
    """No row with the given id."""


class RunError(FoOnnxError, RuntimeError):
    """The model failed while rows were run, or the run exceeded its time."""


class StoreError(FoOnnxError, ValueError):
    """A file of results that cannot be read or written as asked."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """No file of results at the given place."""


class StoreExistsError(StoreError, FileExistsError):
    """The target exists already and was not to be overwritten."""


class StoreWriteError(StoreError, OSError):
    """The operating system refused to write (rights, a full disk)."""


class ResumeError(StoreError):
    """A run that does not fit the one begun."""


class OptionError(FoOnnxError, ValueError):
    """An argument that is no valid choice."""


class TrustError(FoOnnxError, PermissionError):
    """The call would run code from a file that was not said to be trusted."""


class PluginError(FoOnnxError, ImportError):
    """A missing extra, or a plugin that cannot be loaded."""


class FallbackWarning(UserWarning):
    """The native runner stands in for ONNX; the reason is in the message and in ``meta["runner"]``."""


def warn_at_caller(message: str, category: type[Warning] = FallbackWarning) -> None:
    """Warn with a warning that points to the innermost line outside of this package."""
    # Python 3.12 has ``skip_file_prefixes`` for this.
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PASSED_OVER):
        level, frame = level + 1, frame.f_back
    warnings.warn(escaped(message), category, level)


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], error: type[FoOnnxError], doing: str = "Reading") -> Iterator[None]:
    """Turn whatever a parser raises on a damaged or hostile file into an error that names the file.

    This is the border of a reader: within it any exception means that the file is not what it should be. Errors of
    fo-onnx pass as they are.

    Args:
        path: The file.
        error: What to raise, for example `StoreError`.
        doing: What was being done, the beginning of the message.

    Example:
        >>> with reading("a.json", StoreError):
        ...     raise RecursionError("maximum recursion depth exceeded")
        Traceback (most recent call last):
        ...
        fo_onnx.errors.StoreError: Reading a.json: it is damaged, cut short or of another kind (RecursionError: ...
    """
    try:
        yield
    except FoOnnxError:
        raise
    except FileNotFoundError as err:
        raise error(f"{doing} {path}: it is not there (any more).") from err
    except OSError as err:
        # The operating system's errors have numbers.
        if err.errno is None:
            # Arrow raises it for bytes that are not what they should be, too.
            raise _damaged(error, doing, path, err) from err
        raise error(
            f"{doing} {path}: the operating system refuses ({err.strerror or err}). Look at the file and its rights."
        ) from err
    except Exception as err:
        raise _damaged(error, doing, path, err) from err


def _damaged(error: type[FoOnnxError], doing: str, path: str | os.PathLike[str], err: Exception) -> FoOnnxError:
    return error(
        f"{doing} {path}: it is damaged, cut short or of another kind ({first_line(err)}). Make it again, or fetch it "
        "again from where it came."
    )


def append_sentence(message: object, sentence: str) -> str:
    """Return a message with one more sentence, after a full stop if it has none."""
    stop = "" if str(message).endswith((".", "?", "!")) else "."
    return f"{message}{stop} {sentence}"


def first_line(err: BaseException, *, with_kind: bool = True) -> str:
    """Return an exception in one line: its kind and the beginning of its message, without a full stop.

    Errors of fo-onnx are given without their kind.
    """
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    # A line that ends in a colon says nothing without the next.
    message = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1]).rstrip(".")
    if len(message) > LONGEST_LINE:
        message = f"{message[:LONGEST_LINE]}…"
    if message and (isinstance(err, FoOnnxError) or not with_kind):
        return message
    return f"{type(err).__name__}: {message}" if message else type(err).__name__


def root_cause(err: BaseException) -> BaseException:
    """Return the exception that `err` was raised from in the end."""
    while err.__cause__ is not None:
        err = err.__cause__
    return err
