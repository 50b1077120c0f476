"""The digits and the conditions that pictures of them are taken under.

`examples/digits_pictures.npz` holds them before any noise: the test split, of which the traffic is
made, and the reserved rows, of which the calibration set is made; the demo model was trained,
calibrated and tuned on neither. Every picture is taken anew: no two that are sent are the same.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from service.demo.errors import BadInput

__all__ = ["AS_TRAINED", "SHIFTED", "Conditions", "Digits", "png"]

_PARTS: Final = ("test_images", "test_labels", "reserved_images", "reserved_labels")


@dataclass(frozen=True)
class Conditions:
    """How a picture is taken.

    Attributes
    ----------
    degrees : float
        By which the digit is turned.
    noise : float
        Standard deviation of each pixel's own noise, in grey levels of 0 to 255.
    """

    degrees: float
    noise: float

    def taken(self, images: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
        """Pictures of shape (n, 8, 8, 1) under these conditions."""
        from scipy.ndimage import rotate

        turned = images.astype(np.float64)
        if self.degrees:
            turned = rotate(turned, self.degrees, axes=(2, 1), reshape=False, order=1)
        noisy = turned + generator.normal(scale=self.noise, size=images.shape)
        return np.rint(noisy).clip(0, 255).astype(np.uint8)


AS_TRAINED: Final = Conditions(degrees=0.0, noise=60.0)  # models/digits/1/MODEL_CARD.md
# Chosen by looking (docs/demo.md): one prediction in two is right, and the model claims three in
# four.
SHIFTED: Final = Conditions(degrees=20.0, noise=75.0)


@dataclass(frozen=True, eq=False)
class Digits:
    """Clean digits.

    Attributes
    ----------
    test_images, reserved_images : ndarray of shape (n, 8, 8, 1), uint8
    test_labels, reserved_labels : ndarray of shape (n,), int64
    """

    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    reserved_images: NDArray[np.uint8]
    reserved_labels: NDArray[np.int64]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file.

        Raises
        ------
        BadInput
            It is not there or is another.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(**{part: file[part] for part in _PARTS})
        except FileNotFoundError:
            raise BadInput(f"{path} is not there: the demo runs in a checkout only") from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise BadInput(f"{path} must hold the demo's digits: {error}") from None


def png(image: NDArray[np.uint8]) -> bytes:
    """A picture of shape (height, width, 1) as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, format="PNG")
    return buffer.getvalue()
