"""The benchmark of one model: each way to run it on this machine, checked against the model, then timed in turns."""

from .benchmark import run
from .report import advise, compare, write_table
from .result import BenchError, BenchResult, PathResult, read_result

__all__ = ["BenchError", "BenchResult", "PathResult", "advise", "compare", "read_result", "run", "write_table"]
