"""The memory that this process takes."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_memory_bytes() -> int | None:
    """Return the largest memory that this process has had resident; ``None`` where the system does not say.

    On Linux from the process itself: what ``resource`` gives there counts the parent before the program was started.
    """
    if sys.platform == "win32":
        return None
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    if kilobytes is not None:
        return int(kilobytes) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
