"""TensorFlow functions to ONNX by tf2onnx, for the framework packages whose models become such functions."""
