"""`trueprob collect MODEL DATA`: rows through a running service into a named calibration set.

Pictures become logits in the service's network. Rows go in batches that are appended to the set;
the service leaves out a batch that the set holds already, so a command that was interrupted can be
given again.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trueprob.arrays.files import read_arrays
from trueprob.cli.files import UnusableFile, write_whole
from trueprob.cli.tables import print_json, print_line
from trueprob.errors import InvalidInput

if TYPE_CHECKING:
    from trueprob.client import CalibrationSetSummary, Client, FitSummary

__all__ = ["add_parser"]

PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp")
URL: Final = "http://127.0.0.1:8000"


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "collect",
        help="send labelled rows through a running service into a calibration set",
        description="Append labelled pictures or logits to a named calibration set of a running "
        "service, download it, and fit it. The same command again appends nothing twice.",
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument(
        "data",
        metavar="DATA",
        help="a folder with one folder of pictures for each class, named as the class; an .npz "
        "with labels and one of logits, probabilities, log_probabilities, images; or a .csv",
    )
    parser.add_argument("--name", required=True, help="of the set")
    parser.add_argument("--url", default=URL, help=f"of the service, default {URL}")
    parser.add_argument("--key-file", metavar="FILE", help="holds an API key")
    parser.add_argument("--version", type=int, help="of the model, default the live one")
    parser.add_argument("--batch-rows", type=int, default=256, help="of a request, default 256")
    parser.add_argument("-o", "--output", metavar="SET.npz", help="where the set is downloaded to")
    parser.add_argument("--fit", action="store_true", help="fit a calibrator on it")
    parser.add_argument("--method", help="how; default the service's")
    parser.add_argument(
        "--promote",
        choices=("auto", "never", "always", "shadow"),
        default="auto",
        help="default: auto",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 1 when the fit was not admitted."""
    if arguments.batch_rows < 1:
        raise InvalidInput("--batch-rows must be at least 1", field="batch_rows")
    if importlib.util.find_spec("httpx") is None:
        raise UnusableFile(
            "collect needs httpx, which is not installed: pip install 'trueprob[client]'"
        )
    from trueprob.client import Client

    with Client(arguments.url, key=_key(arguments.key_file)) as client:
        found = _append(client, arguments)
        if arguments.output is not None:
            buffer = io.BytesIO()
            client.download(arguments.model, found.digest).save(buffer)
            write_whole(arguments.output, buffer.getvalue())
        fit = _fit(client, arguments, found.digest) if arguments.fit else None
    if arguments.json:
        print_json(
            {
                "set": asdict(found),
                "output": arguments.output,
                "fit": None if fit is None else asdict(fit),
            }
        )
    else:
        print_line(f"{arguments.name}: {found.n} rows, {found.digest}")
        for reason in () if fit is None or fit.verdict is None else fit.verdict.reasons:
            print_line(reason)
        if fit is not None:
            print_line(f"fit {fit.fit}: {fit.error or fit.calibrator}, promoted: {fit.promoted}")
    return 0 if fit is None or (fit.verdict is not None and fit.verdict.admitted) else 1


def _append(client: Client, arguments: argparse.Namespace) -> CalibrationSetSummary:
    found = None
    for index, batch in enumerate(_batches(Path(arguments.data), arguments.batch_rows)):
        found = client.append(arguments.model, arguments.name, batch, version=arguments.version)
        print_line(f"batch {index + 1}: the set has {found.n} rows", sys.stderr)
    if found is None:
        raise InvalidInput(f"{arguments.data} holds no row", field="data")
    return found


def _fit(client: Client, arguments: argparse.Namespace, digest: str) -> FitSummary:
    queued = client.start_fit(
        arguments.model,
        digest,
        method=arguments.method,
        promote=arguments.promote,
        version=arguments.version,
    )
    return client.wait_for_fit(arguments.model, queued.fit, seconds=3600)


def _batches(data: Path, rows: int) -> Iterator[Mapping[str, Any] | Path]:
    if data.is_dir():
        pictures = [
            (picture, folder.name)
            for folder in sorted(data.iterdir())
            if folder.is_dir()
            for picture in sorted(folder.iterdir())
            if picture.suffix.lower() in PICTURES
        ]
        for start in range(0, len(pictures), rows):
            some = pictures[start : start + rows]
            yield {
                "images": [picture.read_bytes() for picture, _ in some],
                "labels": [label for _, label in some],
            }
    elif data.suffix.lower() == ".csv":
        yield data
    else:
        arrays = read_arrays(data, name=str(data))
        lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if "labels" not in arrays or len(set(lengths.values())) > 1:
            raise InvalidInput(
                f"{data} must hold labels and as many rows of each other array, got {lengths}",
                field="data",
            )
        for start in range(0, lengths["labels"], rows):
            yield {name: array[start : start + rows] for name, array in arrays.items()}


def _key(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}") from None
