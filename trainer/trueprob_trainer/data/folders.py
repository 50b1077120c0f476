"""Folders of pictures, ``ROOT/CLASS/picture`` or ``ROOT/{train,test}/CLASS/picture``.

Classes are numbered in the order of their names. Files that begin with a dot are left out.
"""

from pathlib import Path

import numpy as np

from trueprob_trainer.data.decoding import decode
from trueprob_trainer.data.stored import Stored
from trueprob_trainer.errors import BadInput


def read_folder(path: Path, *, image_size: int = 0) -> Stored:
    """Read a folder of pictures.

    Returns: with a test set where there is a folder ``test``. Raises `BadInput`: no such folder,
    or the parts' classes differ.
    """
    if not path.is_dir():
        raise BadInput(f"{path.name} must be a folder of folders of images")
    parts = [path]
    if (path / "train").is_dir():
        parts = [path / name for name in ("train", "test") if (path / name).is_dir()]
    class_names = _folders(parts[0])
    for part in parts[1:]:
        if set(_folders(part)) - set(class_names):
            raise BadInput(f"{path.name}: {part.name} has classes that train has not")
    encoded, labels, tested = [], [], []
    for part in parts:
        for label, name in enumerate(class_names):
            for file in sorted((part / name).glob("*")):
                if file.is_file() and not file.name.startswith("."):
                    encoded.append(np.fromfile(file, dtype=np.uint8))
                    labels.append(label)
                    tested.append(part is not parts[0])
    images = decode(encoded, source=path.name, image_size=image_size)
    given = np.array(tested) if len(parts) == 2 else None
    return Stored(path, images, np.array(labels, dtype=np.int64), class_names, given, encoded)


def _folders(path: Path) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in path.iterdir() if p.is_dir() and p.name[0] != "."))
