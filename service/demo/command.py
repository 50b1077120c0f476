"""The command ``trueprob-service demo`` (``make demo``)."""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

import numpy as np

from service.demo.errors import BadInput
from service.demo.own_service import own_service
from service.demo.pace import Pace
from service.demo.pictures import Digits
from service.demo.screen import Screen
from service.demo.stage import Stage, set_stage, why_not
from service.demo.story import Story
from service.demo.telling import tell
from trueprob.client import Client, ServiceProblem, ServiceUnreachable

__all__ = ["main"]

ROOT: Final = Path(__file__).parents[2]
RUNNING: Final = "http://127.0.0.1:8000"  # where `make run` listens
MODEL: Final = "digits"
KEY_STATUSES: Final = (401, 403)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str]) -> int:
    """Run the demo.

    Parameters
    ----------
    argv : sequence of str
        After ``demo``.

    Returns
    -------
    int
        0 the story happened, 1 it did not, 2 bad input (one line on standard error).
    """
    try:
        return _run(_options(argv))
    except BadInput as error:
        return _refuse(str(error), 2)
    except ServiceProblem as error:
        return _refuse(str(error), 2 if error.status in KEY_STATUSES else 1)
    except ServiceUnreachable as error:
        return _refuse(str(error), 1)
    except KeyboardInterrupt:
        return _refuse("stopped", 1)


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="trueprob-service demo",
        description="Show in a minute how the service notices that a model's conditions have "
        "changed, and what it does. Without --url it uses the service that runs at "
        f"{RUNNING}, or starts one of its own where none does.",
    )
    parser.add_argument("--url", type=_url, help="of a running service")
    parser.add_argument("--own", action="store_true", help="start one in any case")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="holds an API key")
    parser.add_argument("--seed", type=_natural, default=0, help="of order and noise, default 0")
    parser.add_argument("--speed", type=_positive, default=1.0, help="times as fast, default 1")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="leave what is live at the end; a service of its own stays until Ctrl-C",
    )
    options = parser.parse_args(list(argv))
    if options.own and options.url:
        raise BadInput("--own and --url exclude each other")
    if importlib.util.find_spec("httpx") is None:
        raise BadInput("the demo needs httpx, which is not installed: pip install httpx")
    return options


def _run(options: argparse.Namespace) -> int:
    digits = Digits.load(ROOT / "examples" / "digits_pictures.npz")
    # With --json, standard output is the document's alone.
    screen = Screen(sys.stderr if options.json else sys.stdout)
    begin = time.monotonic()
    with ExitStack() as stack:
        # SIGTERM ends the demo as Ctrl-C does: what it started or promoted must not outlive it.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        stack.callback(signal.signal, signal.SIGTERM, before)
        client, url, own = _service(options, stack, screen)
        promoted: set[int] = set()
        if not own:
            stage = set_stage(client, MODEL)
            promoted = stage.made
            stack.callback(_leave, client, stage, screen, keep=options.keep)
            if stage.earlier_labels:
                screen.say(
                    f"It has counted {stage.earlier_labels} labels of this pair within 24 hours: "
                    "in the first two chapters all but evidence and change are of earlier traffic "
                    "too. A service of the demo's own (--own) begins at zero."
                )
        stack.callback(screen.end)
        story = tell(
            client, MODEL, digits, generator=np.random.default_rng(options.seed),
            pace=Pace(options.speed), screen=screen, promoted=promoted,
        )  # fmt: skip
        screen.end()
        _conclude(story, screen)
        if options.json:
            about = {
                "model": MODEL, "url": url, "own_service": own, "seed": options.seed,
                "speed": options.speed, "seconds": round(time.monotonic() - begin, 1),
            }  # fmt: skip
            print(json.dumps({**about, **story.document()}, allow_nan=False), flush=True)
        if own and options.keep:
            screen.say(f"{url} stays until Ctrl-C.")
            threading.Event().wait()
    return 0 if story.happened else 1


def _service(
    options: argparse.Namespace, stack: ExitStack, screen: Screen
) -> tuple[Client, str, bool]:
    """A client, its address, and whether the service is the demo's own."""
    if not options.own:
        url = options.url or RUNNING
        client = stack.enter_context(Client(url, key=_key(options.key_file)))
        reason = why_not(client, url, MODEL)
        if reason is None:
            _introduce(options.seed, url, screen)
            return client, url, False
        if options.url:
            raise BadInput(reason)
        screen.say(f"{reason[0].upper()}{reason[1:]}.")
    screen.say("The demo starts a service of its own, with default settings and no state.")
    url = stack.enter_context(own_service(ROOT / "models"))
    _introduce(options.seed, url, screen)
    return stack.enter_context(Client(url)), url, True


def _introduce(seed: int, url: str, screen: Screen) -> None:
    screen.say(f"Trueprob demo, seed {seed}. Watch along in a browser: {url}/#digits")


def _leave(client: Client, stage: Stage, screen: Screen, *, keep: bool) -> None:
    if not stage.made:
        return
    if keep:
        screen.say("What the demo promoted stays live; POST …/rollback goes back.")
    elif stage.put_back(client):
        screen.say(f"Put back: what was live before, revision {stage.revision}.")
    else:
        screen.say("Somebody else promoted meanwhile: what is live is left as it is.")


def _conclude(story: Story, screen: Screen) -> None:
    if story.happened:
        screen.say("That is the story. docs/watching.md says what each number promises.")
    for complaint in story.complaints:
        screen.say(f"The story did not happen: {complaint}.")


def _key(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return file.read_text("ascii").strip()  # as a header has it
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--key-file {file}: {error}") from None


def _url(text: str) -> str:
    wrong = argparse.ArgumentTypeError(f"expected http://HOST:PORT or https://…, got {text!r}")
    try:
        parts = urlsplit(text)
        port = parts.port  # raises when it is none
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise wrong
    return text.rstrip("/")


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def _refuse(what: str, code: int) -> int:
    print(f"trueprob-service demo: error: {what}", file=sys.stderr)
    return code
