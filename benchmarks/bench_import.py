"""How long do `import fo_onnx` and `fo-onnx --help` take?

Each run is a process of its own. Numpy's import, which is the larger part, is measured in turns with it. The bounds hold
for the median.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

IMPORT_LIMIT_S = 0.150
HELP_LIMIT_S = 0.300
TURNS = 15
_TIMED = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def import_s(module: str) -> float:
    """Seconds that one import takes, measured within a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", _TIMED.format(module)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def help_s() -> float:
    """Seconds that ``fo-onnx --help`` takes as a whole process."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "fo_onnx", "--help"], capture_output=True, check=True)
    return time.perf_counter() - begun


def main() -> None:
    """Prints the times; exit code 1 where one is above its bound."""
    paths = {
        "import numpy": lambda: import_s("numpy"),
        "import fo_onnx": lambda: import_s("fo_onnx"),
        "fo-onnx --help": help_s,
    }
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    for turn in range(TURNS + 1):
        for name, path in paths.items():
            measured = path()
            if turn:
                seconds[name].append(measured)
    for name, found in seconds.items():
        print(
            f"{name:<16} {1e3 * statistics.median(found):6.0f} ms  ({1e3 * min(found):.0f} to {1e3 * max(found):.0f})"
        )
    limits = {"import fo_onnx": IMPORT_LIMIT_S, "fo-onnx --help": HELP_LIMIT_S}
    slow = [name for name, limit in limits.items() if statistics.median(seconds[name]) > limit]
    if slow:
        sys.exit(f"above its bound: {', '.join(slow)}")


if __name__ == "__main__":
    main()
