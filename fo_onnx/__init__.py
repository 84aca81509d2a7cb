"""fo-onnx turns a trained classifier and a dataset into first-order data: a verified class distribution per sample.

The public names are listed in ``__init__.pyi``. They are loaded when they are first used: the command can answer an interrupt
before anything that takes long is imported, and the rooms behind the verbs take longer to load than numpy.
"""

import lazy_loader

from . import errors as errors  # fo_onnx.errors is there at once, and light

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
