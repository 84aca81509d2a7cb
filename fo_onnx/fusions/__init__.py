"""Graphs rewritten for ONNX Runtime's CPU kernels: several nodes become one that gives the same, for sessions alone."""
