"""The calibration service: calibrated probabilities over HTTP, monitored with live labels."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("trueprob")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
