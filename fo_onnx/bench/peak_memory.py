"""The peak memory of each path, in a process that runs it alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace

from .result import BenchResult, PathResult

KEY = "peak_bytes"
"""What a process prints as JSON: its peak memory under this name."""
TIMEOUT_S = 600


def measure_peaks(result: BenchResult, command_for: Callable[[PathResult], Sequence[str]]) -> BenchResult:
    """Return the result with the peak memory of each path that was timed; what failed is among what was not tried.

    Args:
        result: What was measured.
        command_for: Returns the command that runs a path once and prints ``{"peak_bytes": …}`` as its last line.
    """
    paths, failures = [], {}
    for path in result.paths:
        if path.error is None:
            try:
                path = replace(path, peak_bytes=_run(command_for(path)))
            except (OSError, subprocess.SubprocessError, ValueError) as err:
                failures[f"the memory of {path.name}"] = _describe(err)
        paths.append(path)
    return replace(result, paths=tuple(paths), not_tried={**result.not_tried, **failures})


def _run(command: Sequence[str]) -> int:
    completed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    try:
        return int(json.loads(completed.stdout.splitlines()[-1])[KEY])
    except (IndexError, KeyError, ValueError, TypeError) as err:
        raise ValueError(f"its process printed {completed.stdout[-200:]!r}") from err


def _describe(err: Exception) -> str:
    lines = str(getattr(err, "stderr", None) or err).strip().splitlines()
    return f"its process failed: {lines[-1] if lines else type(err).__name__}"
