"""`trueprob labels FILE --model MODEL`: sends labels of earlier predictions by their own ids.

The file is read and sent in pieces, so it may have any size. A label counts once however often it
is sent, so an interrupted command can be repeated; with ``--resume`` it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

from trueprob.cli.collect import URL, api_key, require_httpx
from trueprob.cli.files import UnusableFile, write_atomically
from trueprob.cli.output import print_json, print_line
from trueprob.errors import InvalidInput
from trueprob.tables.parquet_file import open_parquet

__all__ = ["add_parser"]

Row = tuple[str | int, str | int]  # id, label
SEPARATORS: Final = ",;\t|"
COUNTED: Final = ("accepted", "replaced", "duplicate")
SUFFIXES: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "labels",
        help="send labels by the ids of earlier predictions to a running service",
        description="Send the true labels of earlier predictions to a running service, by the ids "
        "that were sent with the predictions. A label counts once, however often it is sent. Exit "
        "code 1: some labels did not count, and --strict was given.",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help=f"table with an id and a label in each row ({', '.join(SUFFIXES)}), or - for a .csv "
        "or lines of JSON on standard input",
    )
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--id-column", default="id", metavar="NAME", help="default: id")
    parser.add_argument("--label-column", default="label", metavar="NAME", help="default: label")
    parser.add_argument("--url", default=URL, help=f"address of the service; default: {URL}")
    parser.add_argument(
        "--key-file",
        metavar="FILE",
        help="file with an API key that has the scope label; default: no key",
    )
    parser.add_argument(
        "--batch-rows", type=int, default=10_000, metavar="N",
        help="labels in a request, 1 to 100000; default: 10000",
    )  # fmt: skip
    parser.add_argument(
        "--resume",
        metavar="PROGRESS",
        help="file that has the number of rows that were answered; begin after them",
    )
    parser.add_argument(
        "--unjoined",
        metavar="OUT.csv",
        help="file for the rows that did not count, with their outcome",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit code 1 if a label did not count"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; with --strict the exit code is 1 if a label did not count."""
    if not 1 <= arguments.batch_rows <= 100_000:
        raise InvalidInput(
            f"--batch-rows must be 1 to 100000, got {arguments.batch_rows}", field="batch_rows"
        )
    if arguments.resume is not None and arguments.file == "-":
        raise InvalidInput("--resume needs a file that can be read again, got -", field="resume")
    require_httpx("labels")
    from trueprob.client import Client

    done = _answered(arguments.resume)
    outcomes: Counter[str] = Counter()
    with ExitStack() as stack:
        client = stack.enter_context(Client(arguments.url, key=api_key(arguments.key_file)))
        names = client.model(arguments.model).class_names
        columns = {"id": arguments.id_column, "label": arguments.label_column}
        rows = stack.enter_context(_Rows(arguments.file, columns))
        unjoined = _Unjoined(stack, arguments.unjoined, append=done > 0)
        sent = sum(1 for _ in itertools.islice(rows, done))
        if sent < done:
            raise InvalidInput(
                f"{arguments.resume} says that {done} rows were answered, but {arguments.file} has "
                f"{sent}: remove it to begin anew",
                field="resume",
            )
        while batch := list(itertools.islice(rows, arguments.batch_rows)):
            labels = [_class(label, names) for _, label in batch]
            answer = client.label_by_id(arguments.model, [key for key, _ in batch], labels)
            others = {o.index: o.outcome for o in answer.outcomes}
            outcomes.update(others.get(i, "accepted") for i in range(len(batch)))
            unjoined.write((*batch[i], o) for i, o in sorted(others.items()) if o not in COUNTED)
            sent += len(batch)
            if arguments.resume is not None:
                write_atomically(arguments.resume, f"{sent}\n".encode())
            print_line(f"{sent} rows answered: {_shown(outcomes)}", sys.stderr)
    counted = sum(outcomes[name] for name in COUNTED)
    lost = outcomes.total() - counted
    if arguments.json:
        print_json({"rows": sent, "resumed_at": done, "counted": counted, "outcomes": outcomes})
    else:
        print_line(f"{outcomes.total()} labels sent, {counted} count: {_shown(outcomes)}")
    if lost and arguments.unjoined is not None:
        print_line(f"{lost} rows that did not count: {arguments.unjoined}", sys.stderr)
    return int(bool(lost) and arguments.strict)


def _shown(outcomes: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in outcomes.most_common()) or "none"


def _class(label: str | int, names: Sequence[str]) -> str | int:
    """A text that is no class name, but a whole number, is a class index."""
    if isinstance(label, str) and label not in names and label.isascii() and label.isdigit():
        return int(label)
    return label


def _answered(path: str | None) -> int:
    if path is None or not Path(path).exists():
        return 0
    try:
        return int(Path(path).read_text("ascii"))
    except (OSError, ValueError):
        raise UnusableFile(f"{path} must hold a number of rows, as --resume writes it") from None


class _Unjoined:
    """The file of rows that did not count; made when the first one comes."""

    def __init__(self, stack: ExitStack, path: str | None, *, append: bool) -> None:
        self._stack, self._path = stack, path
        self._mode = "a" if append else "w"
        self._write: Callable[[Iterable[Any]], None] | None = None

    def write(self, rows: Iterable[tuple[str | int, str | int, str]]) -> None:
        if self._path is None:
            return
        for row in rows:
            if self._write is None:
                file = self._stack.enter_context(
                    Path(self._path).open(self._mode, encoding="utf-8", newline="")  # noqa: SIM115
                )
                self._write = csv.writer(file).writerow
                if file.tell() == 0:
                    self._write(("id", "label", "outcome"))
            self._write(row)


class _Rows:
    """The rows of a file, read in pieces; a context manager."""

    def __init__(self, path: str, columns: Mapping[str, str]) -> None:
        self._path = path
        self._columns = columns  # of the ids and the labels
        self._stack = ExitStack()
        self._number = 0

    def __enter__(self) -> Iterator[Row]:
        try:
            return self._opened()
        except BaseException:
            self._stack.close()
            raise

    def _opened(self) -> Iterator[Row]:
        suffix = Path(self._path).suffix.lower()
        if self._path != "-" and suffix not in SUFFIXES:
            raise UnusableFile(f"{self._path} must end in one of {', '.join(SUFFIXES)}")
        try:
            if suffix == ".parquet":
                return self._parquet()
            text: IO[str] = (
                os.fdopen(os.dup(sys.stdin.fileno()), encoding="utf-8-sig", newline="")
                if self._path == "-"
                else Path(self._path).open(encoding="utf-8-sig", newline="")  # noqa: SIM115
            )
        except OSError as error:
            raise UnusableFile(f"{self._path} cannot be read: {error.strerror}") from None
        self._stack.enter_context(text)
        try:
            first = text.readline()
        except UnicodeDecodeError:
            raise UnusableFile(f"{self._path} is not a text in UTF-8") from None
        lines = itertools.chain([first], text)
        if suffix in (".jsonl", ".ndjson") or (self._path == "-" and first.startswith("{")):
            return self._checked(self._json(lines))
        return self._checked(self._csv(first, lines))

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def _csv(self, first: str, lines: Iterable[str]) -> Iterator[Row]:
        separator = max(SEPARATORS, key=first.count)
        reader = csv.DictReader(lines, delimiter=separator, strict=True)
        try:
            self._require(reader.fieldnames or ())
            for self._number, row in enumerate(reader, 1):
                if None in row or None in row.values():
                    raise InvalidInput(
                        f"row {self._number} of {self._path} must have "
                        f"{len(reader.fieldnames or ())} fields, as the header has",
                        field="file",
                    )
                yield row[self._columns["id"]], row[self._columns["label"]]
        except csv.Error as error:
            raise InvalidInput(
                f"row {self._number + 1} of {self._path}: {error}", field="file"
            ) from None

    def _json(self, lines: Iterable[str]) -> Iterator[Row]:
        for self._number, line in enumerate((x for x in lines if x.strip()), 1):
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise InvalidInput(
                    f"row {self._number} of {self._path} must be an object of JSON in one line",
                    field="file",
                )
            self._require(row)
            yield row[self._columns["id"]], row[self._columns["label"]]

    def _parquet(self) -> Iterator[Row]:
        found, rows = self._stack.enter_context(open_parquet(self._path, name=self._path))
        self._require(found)
        return self._checked(rows([*self._columns.values()]))

    def _require(self, found: Iterable[str]) -> None:
        present = list(found)
        for what, name in self._columns.items():
            if name not in present:
                raise InvalidInput(
                    f"{self._path} must have a column {name!r}, got "
                    f"{', '.join(map(repr, present[:20]))}: name the one of the {what}s with "
                    f"--{what}-column",
                    field=f"{what}_column",
                )

    def _checked(self, rows: Iterable[tuple[Any, Any]]) -> Iterator[Row]:
        try:
            for number, row in enumerate(rows, 1):
                for what, value in zip(self._columns, row, strict=True):
                    whole = isinstance(value, int) and not isinstance(value, bool)
                    if not (whole or (isinstance(value, str) and value)):
                        raise InvalidInput(
                            f"the {what} of row {number} of {self._path} must be a text or a whole "
                            f"number, got {value!r:.100}",
                            field=what,
                        )
                yield row
        except UnicodeDecodeError:
            raise UnusableFile(f"{self._path} is not a text in UTF-8") from None
