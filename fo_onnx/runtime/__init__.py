"""Runs batches: sessions of ONNX Runtime, models in their own framework, and how both are spread over processors."""
