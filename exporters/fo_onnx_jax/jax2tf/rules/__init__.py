"""Rules for single primitives that stand in for jax2tf's, which are missing or wrong without XLA."""
