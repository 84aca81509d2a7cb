"""The public names and signatures, pinned: a change here is a change of the contract with the users."""

from __future__ import annotations

import inspect

import fo_onnx as fo

NAMES = [
    "DataError",
    "DeviceError",
    "Distributions",
    "Engine",
    "ExportError",
    "FallbackWarning",
    "FoOnnxError",
    "ImageFolder",
    "ModelError",
    "OnnxModel",
    "OptionError",
    "OutputError",
    "ParityError",
    "ParityReport",
    "PluginError",
    "ResumeError",
    "RunError",
    "StoreError",
    "TrustError",
    "__version__",
    "check",
    "export",
    "generate",
    "load",
    "save",
    "verify",
]

EXPORT = [
    "model",
    "example",
    "path",
    "framework",
    "params",
    "output",
    "output_name",
    "temperature",
    "class_names",
    "model_name",
    "opset",
    "verify",
    "tolerance",
    "overwrite",
    "trust",
]
GENERATE = [
    "model",
    "data",
    "labels",
    "ids",
    "out",
    "overwrite",
    "resume",
    "device",
    "runner",
    "batch_size",
    "tuning",
    "precision",
    "tv_budget",
    "framework",
    "params",
    "output",
    "output_name",
    "temperature",
    "keep_logits",
    "output_transform",
    "class_names",
    "model_name",
    "tolerance",
    "input_getter",
    "transform",
    "num_workers",
    "on_error",
    "max_errors",
    "timeout_s",
    "limit",
    "progress",
    "meta",
    "trust",
]
VERIFY = ["model", "against", "data", "rows", "tolerance", "device", "framework", "params", "trust"]
OF_A_RUN = [
    "labels",
    "ids",
    "out",
    "overwrite",
    "resume",
    "input_getter",
    "transform",
    "num_workers",
    "on_error",
    "max_errors",
    "timeout_s",
    "limit",
    "progress",
    "meta",
]


def test_names():
    assert sorted(fo.__all__) == sorted(NAMES)
    assert all(getattr(fo, name) is not None for name in NAMES)
    assert set(dir(fo)) == set(NAMES)


def test_a_name_that_is_not_there():
    assert not hasattr(fo, "no_such_name")


def test_arguments_of_the_verbs():
    for verb, names, positional in ((fo.export, EXPORT, 3), (fo.generate, GENERATE, 2), (fo.verify, VERIFY, 3)):
        parameters = inspect.signature(verb).parameters
        assert sorted(parameters) == sorted(names)
        assert list(parameters)[:positional] == names[:positional]
        kinds = [p.kind for p in parameters.values()]
        assert all(k == inspect.Parameter.KEYWORD_ONLY for k in kinds[positional:]), verb


def test_an_engine_takes_what_generate_takes():
    of_the_model = list(inspect.signature(fo.Engine.__init__).parameters)[2:]
    of_a_run = list(inspect.signature(fo.Engine.generate).parameters)[2:]
    assert sorted(of_a_run) == sorted(OF_A_RUN)
    assert set(of_the_model) == set(GENERATE[2:]) - set(OF_A_RUN)
    defaults = inspect.signature(fo.generate).parameters
    for method, names in ((fo.Engine.__init__, of_the_model), (fo.Engine.generate, of_a_run)):
        for name in names:
            assert inspect.signature(method).parameters[name].default == defaults[name].default, name


def test_every_public_name_is_documented():
    for name in NAMES:
        if name != "__version__":
            assert getattr(fo, name).__doc__, name
