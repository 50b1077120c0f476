"""A version from an uploaded form, made by a process of its own.

What is uploaded is not trusted: loading a graph, running it and fitting happen in a child that
ends with its one job. A graph that takes the child down, its memory or its time takes nothing
else, and predictions do not wait. The form is read from its file there; the version appears in the
model repository by one rename, or not at all.
"""

from __future__ import annotations

import logging
import multiprocessing
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from service import errors
from service.child_process import start_without_ctrl_c
from service.form_parts import form_parts
from service.register.inspection import described, inspect_content
from service.register.version import register
from service.register.wishes import Unusable, Wishes, listed_names, refuse_to_guess
from trueprob.errors import TrueprobError, VersionExists
from trueprob.fitting import METHODS
from trueprob.repository import ModelRepository

__all__ = ["UploadedForm", "register_apart", "register_form"]

_LOG: Final = logging.getLogger(__name__)
_FLAG: Final = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
_WISHES: Final = tuple(name for name in vars(Wishes()) if name != "n_classes")
_TEXTS: Final = ("class_names", "method", *_WISHES)
_FILES: Final = ("model", "calibration")
_RESAMPLES: Final = ("bilinear", "bicubic", "box")
_GRACE_SECONDS: Final = 5.0
# Nobody is told more of these than their sentence.
_KINDS: Final[Mapping[str, type[errors.ServiceError]]] = {
    kind.__name__: kind
    for kind in (errors.BadRequest, errors.InvalidRequest, errors.Conflict, errors.Unavailable)
}


@dataclass(frozen=True)
class UploadedForm:
    """What to make a version of.

    Attributes
    ----------
    path : Path
        The body.
    content_type : str
        The header, with the boundary.
    repository : Path
    model : str
    version : int
    providers : tuple of str
        Where the network is run, as the service will.
    max_bytes : int
        Limit of what an archive inflates to.
    created_at : float
        Seconds since 1970 UTC.
    """

    path: Path
    content_type: str
    repository: Path
    model: str
    version: int
    providers: tuple[str, ...]
    max_bytes: int
    created_at: float


def register_apart(form: UploadedForm, *, seconds: float) -> dict[str, Any]:
    """`register_form` in a child; the version as a document.

    Parameters
    ----------
    form : UploadedForm
    seconds : float
        Until it is given up.

    Raises
    ------
    BadRequest, InvalidRequest, Conflict, Unavailable
        Nothing was added.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    child = spawn.Process(
        target=_answer, args=(theirs, form), name="trueprob-register", daemon=True
    )
    start_without_ctrl_c(child)
    theirs.close()
    try:
        if not ours.poll(seconds):
            raise errors.InvalidRequest(f"the network was not ready after {seconds:g} s")
        outcome = ours.recv()
    except EOFError:
        child.join()
        raise errors.InvalidRequest(
            f"the process that ran the network ended with exit code {child.exitcode}"
        ) from None
    finally:
        child.terminate()  # a version that is being written is removed on the way out
        child.join(_GRACE_SECONDS)
        child.kill()  # inside a network it does not hear of that, and then nothing is written
        child.join()
        ours.close()
    if isinstance(outcome, dict):
        return outcome
    kind, detail = outcome
    raise _KINDS.get(kind, errors.ServiceError)(detail)


def register_form(form: UploadedForm) -> dict[str, Any]:
    """Add the version in a form to the repository.

    Raises
    ------
    BadRequest, InvalidRequest, Conflict, Unavailable
        Nothing was added.
    """
    files, texts = _parts(form)
    try:
        return _registered(form, files, texts)
    except VersionExists:
        raise errors.Conflict(
            f"version {form.version} of model {form.model!r} was added by another request: try "
            "again"
        ) from None
    except (Unusable, TrueprobError) as error:
        raise errors.InvalidRequest(_by_part(str(error))) from None
    except errors.ProviderUnavailable as error:
        raise errors.Unavailable(error.detail) from None
    except (errors.ModelUnavailable, errors.InferenceFailed) as error:
        raise errors.InvalidRequest(error.detail) from None
    except OSError as error:
        raise errors.Unavailable(
            f"the model repository cannot be written: {error.strerror}"
        ) from None


def _parts(form: UploadedForm) -> tuple[dict[str, bytes], dict[str, str]]:
    files: dict[str, bytes] = {}
    texts: dict[str, str] = {}
    for part in form_parts(form.path, form.content_type):
        if part.name in files or part.name in texts:
            raise errors.InvalidRequest(f"part {part.name!r} is given twice")
        if part.name in _FILES:
            files[part.name] = part.content
        elif part.name in _TEXTS:
            try:
                texts[part.name] = part.content.decode("utf-8")
            except UnicodeDecodeError:
                raise errors.InvalidRequest(f"part {part.name} must be a text") from None
        else:
            raise errors.InvalidRequest(
                f"unknown part {part.name[:40]!r}; expected {', '.join((*_FILES, *_TEXTS))}"
            )
    if not files.get("model"):
        raise errors.InvalidRequest("the form must have a part model, the network in ONNX")
    return files, texts


def _registered(
    form: UploadedForm, files: Mapping[str, bytes], texts: Mapping[str, str]
) -> dict[str, Any]:
    names = None if "class_names" not in texts else _names(texts["class_names"])
    method = texts.get("method", "smart")
    for name, value, known in (
        ("method", method, METHODS),
        ("resample", texts.get("resample", _RESAMPLES[0]), _RESAMPLES),
    ):
        if value not in known:
            raise Unusable(f"part {name} must be one of {', '.join(known)}, got {value[:40]!r}")
    wishes = Wishes(
        n_classes=None if names is None else len(names),
        **{name: texts[name] for name in _WISHES if name in texts},
    )
    network = inspect_content(files["model"], wishes, refuse_to_guess)
    if names is None:
        names = tuple(str(index) for index in range(network.n_classes))
    if len(names) != network.n_classes:
        raise Unusable(
            f"part class_names has {len(names)} names, output {network.output_name!r} has "
            f"{network.n_classes} classes"
        )
    registered = register(
        files["model"],
        network,
        repository=ModelRepository(form.repository),
        name=form.model,
        number=form.version,
        names=names,
        calibration=files.get("calibration"),
        method=method,
        providers=form.providers,
        source="uploaded",
        created_at=datetime.fromtimestamp(form.created_at, UTC),
        max_bytes=form.max_bytes,
    )
    return {k: v for k, v in described(registered).items() if k != "path"}


def _names(text: str) -> Sequence[str]:
    return listed_names(
        text,
        is_json=text.lstrip().startswith("["),
        otherwise="part class_names must be a JSON list of texts, or one name a line",
    )


def _by_part(sentence: str) -> str:
    """What the command calls a flag is a part here."""
    return _FLAG.sub(lambda match: f"part {match[1].replace('-', '_')}", sentence)


def _answer(connection: Connection, form: UploadedForm) -> None:
    """In the child: one document, or the kind and the sentence of what was wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        connection.send(register_form(form))
    except errors.ServiceError as error:
        connection.send((type(error).__name__, error.detail))
    except Exception:  # noqa: BLE001 - the edge of this process
        logging.basicConfig(level=logging.ERROR)
        _LOG.exception("an uploaded model could not be registered")
        connection.send(("ServiceError", "the model could not be registered; the log says more"))
