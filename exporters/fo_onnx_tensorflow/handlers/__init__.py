"""TensorFlow operators that tf2onnx lacks or gets wrong, as ONNX nodes."""
