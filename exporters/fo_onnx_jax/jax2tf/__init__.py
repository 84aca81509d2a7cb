"""JAX functions to ONNX through TensorFlow graphs, for jax before 0.7.2."""
