"""The command ``fo-onnx``, one file per command; each turns its arguments into one call of the public API and prints."""
