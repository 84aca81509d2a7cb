"""Converters of estimators for skl2onnx in the place of its own, where those are inexact, wrong, or lack float64."""
