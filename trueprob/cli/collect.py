"""`trueprob collect MODEL DATA`: appends labelled rows to a calibration set of a running service.

The network of the service turns pictures into logits. Rows are sent in batches. The service skips a
batch that the set holds already, so an interrupted command can be repeated.
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
from trueprob.cli.files import UnusableFile, write_atomically
from trueprob.cli.output import print_findings, print_json, print_line
from trueprob.errors import InvalidInput

if TYPE_CHECKING:
    from trueprob.client import CalibrationSetSummary, Client, FitSummary

__all__ = ["URL", "add_parser", "api_key", "require_httpx"]

PICTURES: Final = (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
URL: Final = "http://127.0.0.1:8000"
FIT_SECONDS: Final = 3600.0  # how long --fit waits


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "collect",
        help="append labelled rows to a calibration set of a running service",
        description="Append labelled pictures or logits to a named calibration set of a running "
        "service. Optionally download the set and fit a calibrator on it. Rows that the "
        "set holds already are not appended again, so the command may be repeated. Exit code 1: "
        "the fit failed, or its calibrator was not admitted, which includes being held.",
    )
    parser.add_argument("model", metavar="MODEL", help="name of the model")
    parser.add_argument(
        "data",
        metavar="DATA",
        help="folder that has a folder of pictures (.png, .jpg, .jpeg, .webp) for each class, "
        "named as the class; an .npz with labels and one of logits, probabilities, "
        "log_probabilities, images; or a .csv",
    )
    parser.add_argument("--name", required=True, help="name of the calibration set")
    parser.add_argument("--url", default=URL, help=f"address of the service; default: {URL}")
    parser.add_argument("--key-file", metavar="FILE", help="file with an API key; default: no key")
    parser.add_argument(
        "--version", type=int, metavar="N", help="version of the model; default: the live one"
    )
    parser.add_argument(
        "--batch-rows",
        type=int,
        default=256,
        metavar="N",
        help="rows in a request; default: 256. A .csv is sent in one request",
    )
    parser.add_argument(
        "-o", "--output", metavar="SET.npz", help="file to download the set to; default: none"
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="fit a calibrator on the set and wait for it, at most an hour",
    )
    parser.add_argument(
        "--method", help="calibration method of the fit; default: the service's setting"
    )
    parser.add_argument(
        "--promote",
        choices=("auto", "never", "always", "shadow"),
        default="auto",
        help="when to promote the fitted calibrator: if it is admitted, never, in any case, or if "
        "it proves better in the shadow of the live pair; default: auto",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; the exit code is 1 if the fit failed or was not admitted."""
    if arguments.batch_rows < 1:
        raise InvalidInput(
            f"--batch-rows must be at least 1, got {arguments.batch_rows}", field="batch_rows"
        )
    require_httpx("collect")
    from trueprob.client import Client

    with Client(arguments.url, key=api_key(arguments.key_file)) as client:
        calibration_set = _append(client, arguments)
        if arguments.output is not None:
            buffer = io.BytesIO()
            client.download(arguments.model, calibration_set.digest).save(buffer)
            write_atomically(arguments.output, buffer.getvalue())
        fit = _fit(client, arguments, calibration_set.digest) if arguments.fit else None
    if arguments.json:
        print_json(
            {
                "set": asdict(calibration_set),
                "output": arguments.output,
                "fit": None if fit is None else asdict(fit),
            }
        )
    else:
        print_line(f"{arguments.name}: {calibration_set.n} rows, {calibration_set.digest}")
        for reason in () if fit is None or fit.verdict is None else fit.verdict.reasons:
            print_line(reason)
        if fit is not None:
            print_line(f"fit {fit.fit}: {fit.error or fit.calibrator}, promoted: {fit.promoted}")
    verdict = None if fit is None else fit.verdict
    findings = calibration_set.findings if verdict is None else verdict.findings
    print_findings(findings or (), strict=False)
    return 0 if fit is None or (fit.verdict is not None and fit.verdict.admitted) else 1


def _append(client: Client, arguments: argparse.Namespace) -> CalibrationSetSummary:
    calibration_set = None
    for index, batch in enumerate(_batches(Path(arguments.data), arguments.batch_rows)):
        calibration_set = client.append(
            arguments.model, arguments.name, batch, version=arguments.version
        )
        print_line(f"batch {index + 1}: the set has {calibration_set.n} rows", sys.stderr)
    if calibration_set is None:
        raise InvalidInput(f"{arguments.data} must hold at least one row, got none", field="data")
    return calibration_set


def _fit(client: Client, arguments: argparse.Namespace, digest: str) -> FitSummary:
    queued = client.start_fit(
        arguments.model,
        digest,
        method=arguments.method,
        promote=arguments.promote,
        version=arguments.version,
    )
    return client.wait_for_fit(arguments.model, queued.fit, seconds=FIT_SECONDS)


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
            batch = pictures[start : start + rows]
            yield {
                "images": [picture.read_bytes() for picture, _ in batch],
                "labels": [label for _, label in batch],
            }
    elif data.suffix.lower() == ".csv":
        yield data
    else:
        arrays = read_arrays(data, name=str(data))
        # One name for each class, so it is sent with every batch.
        names = {n: arrays.pop(n) for n in ("class_names",) if n in arrays}
        lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if "labels" not in arrays or len(set(lengths.values())) > 1:
            raise InvalidInput(
                f"{data} must hold labels, and each array must have as many rows, got {lengths}",
                field="data",
            )
        for start in range(0, lengths["labels"], rows):
            yield {n: array[start : start + rows] for n, array in arrays.items()} | names


def require_httpx(command: str) -> None:
    """Refuse a command where the client's package is not installed."""
    if importlib.util.find_spec("httpx") is None:
        raise UnusableFile(
            f"{command} needs httpx, which is not installed: pip install 'trueprob[client]'"
        )


def api_key(path: str | None) -> str | None:
    """The key in a file; None without one."""
    if path is None:
        return None
    try:
        return Path(path).read_text("utf-8").strip()
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}") from None
