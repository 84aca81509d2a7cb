"""The generators of the multi-framework guide: one shared generator over the engine, bound to each framework's tensors."""
