"""The tests, by room.

- ``core/``: mirrors ``fo_onnx``; needs no framework (``make test-core``).
- ``contracts/``: one suite for each contract, run against every implementation.
- ``frameworks/``: each exporter with its framework, and the guide's modules.
- ``faults/``: kills, signals, full disks, time limits, long runs. ``attacks/``: hostile files.
- ``coverage/``: the programs of docs/coverage.md. ``project/``: the documentation, the wheel, the Makefile.
- ``support/``: what several of them use.

It is a package, so that no other package of this name is taken for it.
"""
