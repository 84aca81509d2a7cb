"""What a model is, before anything runs: an ONNX file, or an object and the plugin of its framework."""
