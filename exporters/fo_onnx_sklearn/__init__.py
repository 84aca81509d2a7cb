"""scikit-learn classifiers: export to ONNX by skl2onnx, the native runner, and data frames as sources."""
