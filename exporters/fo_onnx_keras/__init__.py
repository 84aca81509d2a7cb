"""Keras and TensorFlow models and data for fo-onnx."""
