"""``python -m fo_onnx`` is ``fo-onnx``."""

from .cli.main import main

main()
