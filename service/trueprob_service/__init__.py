"""The calibration service: calibrated probabilities over HTTP, watched with live labels."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("trueprob")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
