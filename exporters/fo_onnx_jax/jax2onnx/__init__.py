"""JAX functions to ONNX through jax2onnx, for jax 0.7.2 and newer."""
