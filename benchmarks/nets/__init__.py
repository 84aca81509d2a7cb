"""The nets of the benchmarks by framework: `torch_nets`, `keras_nets`, `jax_nets`, and their rows in `rows`.

Each module gives a net when its attribute is asked for, so that ``fo-onnx bench benchmarks.nets.torch_nets:resnet18`` works, in a
process of its own too.
"""
