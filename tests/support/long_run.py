"""A run in a process of its own, to be killed or interrupted: ``long_run.py MODEL DATA OUT [pause]``."""

from __future__ import annotations

import sys
import time

import fo_onnx as fo

if __name__ == "__main__":
    model, data, out, *pause = sys.argv[1:]
    transform = None
    if pause:

        def transform(x):
            time.sleep(float(pause[0]))
            return x

    print("begun", flush=True)
    fo.generate(model, data, out=out, resume=True, batch_size=64, transform=transform, progress=False)
    print("done", flush=True)
