"""The user's own cache: where it lies, how large it may be, and that nobody else could have put something there.

``FO_ONNX_CACHE_DIR`` names another folder than the platform's; ``FO_ONNX_CACHE_GB`` another limit than 10 (0 keeps nothing).
"""

from __future__ import annotations

import functools
import logging
import os
import stat
from pathlib import Path

from ..errors import OptionError, StoreError

log = logging.getLogger("fo_onnx.cache")
FOLDER_VARIABLE = "FO_ONNX_CACHE_DIR"
LIMIT_VARIABLE = "FO_ONNX_CACHE_GB"
DEFAULT_LIMIT_GB = 10.0


def limit_bytes() -> int:
    """Return how many bytes the environment lets exports take; 0 if nothing is to be kept.

    Raises:
        OptionError: The limit is no number.
    """
    said = os.environ.get(LIMIT_VARIABLE)
    try:
        limit_gb = DEFAULT_LIMIT_GB if said is None else float(said)
        if not 0 <= limit_gb < float("inf"):
            raise ValueError
    except ValueError:
        raise OptionError(
            f"the environment says {LIMIT_VARIABLE}={said!r}; gigabytes were expected, 0 to keep nothing."
        ) from None
    return int(limit_gb * 1e9)


def exports_folder() -> Path:
    """Return where exports are kept."""
    return _named_folder() or _platform_folder() / "exports"


def measurements_folder() -> Path:
    """Return where what was measured on this machine is kept."""
    return (_named_folder() or _platform_folder()) / "measurements"


def _named_folder() -> Path | None:
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else None


def _platform_folder() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("fo-onnx")


def require_own_folder(folder: Path) -> None:
    """Raise a `StoreError`, with the cure, unless a folder of the cache is this user's alone and may be written to."""
    require_own(folder)
    cure = f"name another one with {FOLDER_VARIABLE}."
    if not folder.is_dir():
        raise StoreError(f"{folder} is no folder; {cure}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"{folder} may not be written to; {cure}")


def require_own(path: Path) -> None:
    """Raise a `StoreError`, with the cure, unless a folder or file of the cache is this user's alone."""
    cure = f"remove it, or name a folder of your own with {FOLDER_VARIABLE}."
    try:
        status = path.lstat()
    except OSError as err:
        raise StoreError(f"it cannot be looked at ({err.strerror}); {cure}") from err
    if stat.S_ISLNK(status.st_mode):
        raise StoreError(f"{path} is a link, and links are not followed; {cure}")
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        raise StoreError(f"{path} is neither a folder nor a regular file; {cure}")
    if not hasattr(os, "getuid"):  # Windows: a user's folders are the user's
        return
    if status.st_uid != os.getuid():
        raise StoreError(
            f"{path} belongs to another user (number {status.st_uid}), who could put something else there; chown it, {cure}"
        )
    if status.st_mode & 0o022:
        raise StoreError(f"others may write to {path}, and could put something else there; chmod go-w it, {cure}")


@functools.cache
def warn_once(text: str) -> None:
    """Log a warning, and not again in this process."""
    log.warning("%s", text)
