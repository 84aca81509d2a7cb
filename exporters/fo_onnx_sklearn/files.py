"""Estimators in files. Both ways to save them, joblib's and pickle's, are pickles, which run code when they are read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from fo_onnx.errors import ModelError, ModelNotFoundError, PluginError, TrustError


def load(path: Path, *, trust: bool) -> Any:
    """Return the estimator in a file that ``joblib.dump`` or ``pickle.dump`` wrote.

    Raises:
        ModelNotFoundError: There is no such file.
        TrustError: `trust` is false; nothing of the file has run.
        ModelError: It cannot be read, holds no estimator, or was written by another version of scikit-learn.
        PluginError: scikit-learn is not installed.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"opening {path}: there is no such file.")
    if not trust:
        raise TrustError(
            f"{path} is a pickled estimator, and reading it runs whatever code it holds. If you trust where it came from, say "
            "trust=True (--trust-pickle on the command line). Safer: export it once where it was trained, and give the .onnx file."
        )
    try:
        import joblib
        from sklearn.exceptions import InconsistentVersionWarning

        from .detect import is_model
    except ImportError as err:
        raise PluginError(f"opening {path} needs scikit-learn ({err}): pip install 'fo-onnx[sklearn]'.") from err
    try:
        with warnings.catch_warnings():
            # Fitted state means something else in another version, without an error: scikit-learn's own warning says so.
            warnings.simplefilter("error", InconsistentVersionWarning)
            estimator = joblib.load(path)
    except InconsistentVersionWarning as err:
        then, now = err.original_sklearn_version, err.current_sklearn_version
        raise ModelError(
            f"reading the estimator in {path}: it was written with scikit-learn {then}, and {now} is installed, which could give "
            f"other rows. Install scikit-learn=={then}, or fit and save it again."
        ) from err
    except Exception as err:
        # Reading a pickle runs code, which raises what it likes.
        raise ModelError(f"reading the estimator in {path} failed: {type(err).__name__}: {err}") from err
    if not is_model(estimator):
        raise ModelError(
            f"{path} holds a {type(estimator).__name__}, no estimator; what joblib.dump(estimator, …) wrote was expected."
        )
    return estimator
