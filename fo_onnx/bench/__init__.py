"""Compares the ways to run a model on this machine: each framework's own, ONNX Runtime, and fo-onnx."""
