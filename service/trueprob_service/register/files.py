"""The files of a network: the ONNX file, and those beside it that hold its weights.

They are laid out in an empty folder as in the repository, and loaded from there: so a network that
needs any other file is refused.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trueprob.arrays.files import is_lfs_pointer
from trueprob.onnx_export.graph_content import weight_files, with_zipmap_inputs
from trueprob.repository.manifest import valid_file_name
from trueprob.repository.model_version import BASELINE, CALIBRATOR, CARD, MODEL
from trueprob_service.inspection.inspector import Inspector
from trueprob_service.register.options import CannotRegister

__all__ = ["NetworkFiles", "laid_out"]

_OWN_FILES: Final = ("manifest.json", MODEL, CALIBRATOR, BASELINE, CARD)


@dataclass(frozen=True)
class NetworkFiles:
    """A network whose files lie as in the repository."""

    source: str  # name of the file that is registered
    content: bytes  # of `model.onnx`: of the source, with the scores of a ZipMap as an output
    weights: Mapping[str, Path]  # by their path in the version
    path: Path  # of `model.onnx` in a folder with these files only


@contextmanager
def laid_out(source: Path, inspector: Inspector) -> Iterator[NetworkFiles]:
    """Read a network for as long as the block lasts.

    Raises `CannotRegister` or `NetworkRefused` if a file of weights is missing, lies elsewhere or
    cannot have its name in the repository, or a file is a pointer of Git LFS.
    """
    content = source.read_bytes()
    if is_lfs_pointer(content):
        raise CannotRegister(
            f"{source} is a Git LFS pointer, not the network itself: run `git lfs pull`"
        )
    inspector.files(source, thorough=True)  # what follows reads it in this process
    weights = weight_files(content, source.parent)
    for name in weights:
        if not valid_file_name(name) or name in _OWN_FILES:
            raise CannotRegister(
                f"the network's file of weights {name[:100]!r} cannot have this name in the "
                "repository (letters, digits, '_', '.' and '-', and none of "
                f"{', '.join(_OWN_FILES)}): save the network again with another one"
            )
    content = with_zipmap_inputs(content)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        path.write_bytes(content)
        for name, file in weights.items():
            place = Path(folder) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file.resolve(), place)
            except OSError:  # another file system, or one without links
                shutil.copyfile(file, place)
        yield NetworkFiles(source.name, content, weights, path)
