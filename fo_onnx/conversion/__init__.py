"""A framework's model becomes a verified ONNX file."""
