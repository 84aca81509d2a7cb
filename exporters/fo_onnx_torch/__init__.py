"""torch classifiers: export to ONNX, the native runner, and torch's datasets and loaders as sources."""
