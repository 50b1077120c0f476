"""Thirteen common corruptions at severities 1 to 5 (Hendrycks, Dietterich: arXiv:1903.12261).

Strengths are those of CIFAR-10-C, for images of 32x32 pixels with values in [0, 1]. Two differ from
the authors' programs: motion blur is a sum of shifts (theirs needs ImageMagick), and brightness is
added to every channel (theirs to V of HSV, which is the same unless a channel saturates). Snow,
frost, glass, spatter and elastic are not included. Noise is seeded: the same image, name, severity
and seed give the same result.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from trueprob_trainer.errors import BadInput

Values = NDArray[np.float32]  # (height, width, channels), 0 to 1
SEVERITIES = (1, 2, 3, 4, 5)


def _gaussian_noise(x: Values, level: int, rng: Generator) -> Values:
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[level]
    return x + rng.normal(0, deviation, x.shape).astype(np.float32)


def _shot_noise(x: Values, level: int, rng: Generator) -> Values:
    photons = (500, 250, 100, 75, 50)[level]
    return (rng.poisson(x * photons) / photons).astype(np.float32)


def _impulse_noise(x: Values, level: int, rng: Generator) -> Values:
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[level]
    hit, white = rng.random(x.shape) < share, rng.random(x.shape) < 0.5
    return np.where(hit, white.astype(np.float32), x)


def _speckle_noise(x: Values, level: int, rng: Generator) -> Values:
    deviation = (0.06, 0.1, 0.12, 0.16, 0.2)[level]
    return x + x * rng.normal(0, deviation, x.shape).astype(np.float32)


def _gaussian_blur(x: Values, level: int, rng: Generator) -> Values:  # noqa: ARG001 - one signature
    deviation = (0.4, 0.6, 0.7, 0.8, 1.0)[level]  # pixels
    blurred: Values = ndimage.gaussian_filter(x, (deviation, deviation, 0), mode="nearest")
    return blurred


def _defocus_blur(x: Values, level: int, rng: Generator) -> Values:  # noqa: ARG001
    radius, softness = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))[level]
    side = np.arange(-8, 9)
    disk = (side[:, None] ** 2 + side[None, :] ** 2 <= radius**2).astype(np.float32)
    soft = ndimage.gaussian_filter(disk / disk.sum(), softness, truncate=1 / softness)
    blurred: Values = ndimage.convolve(x, soft[..., None] / soft.sum(), mode="reflect")
    return blurred


def _motion_blur(x: Values, level: int, rng: Generator) -> Values:
    # The authors' radii and deviations for 32 pixels.
    radius, deviation = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))[level]
    angle = rng.uniform(-np.pi / 4, np.pi / 4)
    steps = np.arange(radius)
    weights = np.exp(-0.5 * (steps / deviation) ** 2)
    moved = [
        ndimage.shift(x, (step * np.sin(angle), step * np.cos(angle), 0), order=1, mode="nearest")
        for step in steps
    ]
    blurred: Values = np.average(moved, axis=0, weights=weights).astype(np.float32)
    return blurred


def _zoom_blur(x: Values, level: int, rng: Generator) -> Values:  # noqa: ARG001
    largest = (1.06, 1.11, 1.16, 1.21, 1.26)[level]
    factors = np.arange(1, largest, 0.01)
    mean: Values = np.mean([x, *(_zoomed(x, f) for f in factors)], axis=0, dtype=np.float32)
    return mean


def _zoomed(x: Values, factor: float) -> Values:
    centre = (np.array(x.shape[:2]) - 1) / 2
    matrix = np.diag([1 / factor, 1 / factor, 1])
    offset = np.append(centre * (1 - 1 / factor), 0)
    zoomed: Values = ndimage.affine_transform(x, matrix, offset, order=1, mode="nearest")
    return zoomed


def _fog(x: Values, level: int, rng: Generator) -> Values:
    amount, decay = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))[level]
    clouds = np.zeros(x.shape[:2])
    side, strength = 2, 1.0
    while side <= 2 * max(x.shape[:2]):  # octaves of bilinear noise, each 1/decay as strong
        grid = rng.random((side, side))
        zoom = [length / side for length in x.shape[:2]]
        clouds += strength * ndimage.zoom(grid, zoom, order=1, grid_mode=True, mode="nearest")
        side, strength = 2 * side, strength / decay
    clouds = (clouds - clouds.min()) / (np.ptp(clouds) or 1)
    brightest = x.max()
    foggy: Values = (x + amount * clouds[..., None]) * (brightest / (brightest + amount))
    return foggy.astype(np.float32)


def _brightness(x: Values, level: int, rng: Generator) -> Values:  # noqa: ARG001
    return x + np.float32((0.05, 0.1, 0.15, 0.2, 0.3)[level])


def _contrast(x: Values, level: int, rng: Generator) -> Values:  # noqa: ARG001
    factor = np.float32((0.75, 0.5, 0.4, 0.3, 0.15)[level])
    mean = x.mean(axis=(0, 1), keepdims=True)
    flatter: Values = (x - mean) * factor + mean
    return flatter


def _pixelate(x: Values, level: int, rng: Generator) -> Values:  # noqa: ARG001
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[level]
    height, width = x.shape[:2]
    small = _picture(x).resize(
        (max(1, int(width * share)), max(1, int(height * share))), Image.Resampling.BOX
    )
    return _values(small.resize((width, height), Image.Resampling.NEAREST))


def _jpeg(x: Values, level: int, rng: Generator) -> Values:  # noqa: ARG001
    buffer = io.BytesIO()
    _picture(x).save(buffer, "JPEG", quality=(80, 65, 58, 50, 40)[level])
    return _values(Image.open(buffer))


CORRUPTIONS: dict[str, Callable[[Values, int, Generator], Values]] = {
    "gaussian-noise": _gaussian_noise,
    "shot-noise": _shot_noise,
    "impulse-noise": _impulse_noise,
    "speckle-noise": _speckle_noise,
    "gaussian-blur": _gaussian_blur,
    "defocus-blur": _defocus_blur,
    "motion-blur": _motion_blur,
    "zoom-blur": _zoom_blur,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}


def corrupt(
    images: NDArray[np.uint8], name: str, severity: int, *, seed: int = 0
) -> NDArray[np.uint8]:
    """Corrupted copies of images; ``severity`` is 1 (weak) to 5 (strong)."""
    if name not in CORRUPTIONS:
        raise BadInput(f"corruption must be one of {', '.join(CORRUPTIONS)}, got {name}")
    if severity not in SEVERITIES:
        raise BadInput(f"severity must be 1 to 5, got {severity}")
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(name), severity])
    out = np.empty_like(images)
    for row, image in enumerate(images):
        x = image.astype(np.float32) / np.float32(255)
        out[row] = _bytes(CORRUPTIONS[name](x, severity - 1, rng))
    return out


def _bytes(x: Values) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.rint(x.clip(0, 1) * 255).astype(np.uint8)
    return pixels


def _picture(x: Values) -> Image.Image:
    pixels = _bytes(x)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _values(picture: Image.Image) -> Values:
    pixels = np.asarray(picture, dtype=np.float32) / np.float32(255)
    return pixels[..., None] if pixels.ndim == 2 else pixels
