"""Converters of estimators for skl2onnx in place of its own, where those are inexact, wrong, or lack float64."""
