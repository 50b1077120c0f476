"""``make demo``: runs the demo on a running service, or on one that it starts."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

from examples.demo.screen import say
from examples.demo.story import MODEL, Story
from trueprob.client import Client, FitStillRunning, ServiceProblem, ServiceUnreachable


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"demo: error: {message}\n")


def main(argv: list[str]) -> int:
    """Run the demo. Exit codes: 0 all steps happened, 1 a step did not, 2 bad input."""
    parser = _Parser(
        prog="demo",
        description="Show how the service notices that the inputs of a model have changed. "
        "The demo uses the service on port TRUEPROB_PORT of this machine (default: 8000), "
        "or starts its own if none runs there.",
    )
    parser.add_argument("--own", action="store_true", help="start a service even if one runs")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the order of the digits and of the noise; default: 0",
    )
    parser.add_argument(
        "--speed",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="how many times faster than normal (about a minute); default: 1",
    )
    options = parser.parse_args(argv)
    if options.seed < 0:
        parser.error(f"--seed: expected 0 or more, got {options.seed}")
    if not 0 < options.speed < math.inf:
        parser.error(f"--speed: expected a number above 0, got {options.speed:g}")
    port = os.environ.get("TRUEPROB_PORT", "8000")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        parser.error(f"TRUEPROB_PORT: expected a port, 0 to 65535, got {port!r}")
    # SIGTERM ends the demo as Ctrl-C does, so that it stops its service or undoes its promotions.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        story = _tell_story(None if options.own else f"http://127.0.0.1:{port}", options)
    except (ServiceProblem, ServiceUnreachable, FitStillRunning) as error:
        sys.exit(f"demo: error: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: stopped")
    finally:
        signal.signal(signal.SIGTERM, before)
    return 1 if story.complaints else 0


def _tell_story(url: str | None, options: argparse.Namespace) -> Story:
    with ExitStack() as stack:
        running = url is not None and _is_usable(url)
        if url is None or not running:
            url = stack.enter_context(own_service())
        client = stack.enter_context(Client(url))
        say(f"Trueprob demo, seed {options.seed}. Watch along in a browser: {url}/#{MODEL}")
        story = Story(client, seed=options.seed, speed=options.speed)
        if running:
            stack.enter_context(factory_calibrator(client, story.promoted))
        story.tell()
        for complaint in story.complaints:
            say(f"The story did not happen: {complaint}.")
        if not story.complaints:
            say("That is the story. docs/watching.md says what each number promises.")
    return story


def _is_usable(url: str) -> bool:
    reason = "does not serve the demo model"
    try:
        with Client(url) as client:
            client.readiness()
            client.metrics()
            found = client.model(MODEL)
            if found.n_classes == 10 and any(v.live and v.network for v in found.versions):
                return True
    except ServiceUnreachable:
        reason = "does not answer"
    except ServiceProblem as problem:
        reason = f"refused: {problem.detail}"
    say(f"{url} {reason}. The demo starts a service of its own, with default settings.")
    return False


@contextmanager
def own_service() -> Iterator[str]:
    """Start a service on a free port with an empty state, and stop it at the end."""
    # Settings of another service (its keys, its database) must not reach this one.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRUEPROB_")}
    models = Path(__file__).parents[2] / "models"
    with tempfile.TemporaryDirectory(prefix="trueprob-demo-") as folder:
        command = [
            sys.executable, "-m", "trueprob_service", "serve", "--port", "0",
            "--state-dir", f"{folder}/state", "--model-repository", str(models),
        ]  # fmt: skip
        log = Path(folder) / "service.log"
        with log.open("w") as errors, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
            start_new_session=True,  # the demo handles Ctrl-C
        ) as process:  # fmt: skip
            try:
                line = process.stdout.readline() if process.stdout else ""
                listens = re.match(r"Trueprob listens on (\S+) ", line)
                if listens is None:
                    sys.exit(f"demo: error: its service did not start: {log.read_text()[-500:]}")
                yield listens[1]
            finally:
                process.terminate()


@contextmanager
def factory_calibrator(client: Client, promoted: set[int]) -> Iterator[None]:
    """Make the factory calibrator live, with its statistics at zero; at the end undo that.

    `promoted` has the revisions that the demo made. If another revision is live at the end,
    somebody else promoted it, and it stays.
    """
    before = client.calibration(MODEL)
    (factory,) = (
        each.calibrator
        for each in client.calibrators(MODEL)
        if each.origin == "factory" and each.version == before.version
    )
    if before.calibrator != factory or before.labels:
        # Any promotion starts evidence and change again, even one of the same calibrator.
        promoted.add(client.promote(MODEL, factory, revision=before.revision).revision)
        if labels := client.calibration(MODEL).labels:
            say(f"ECE and observed in steps 1 and 2 hold {labels} labels of earlier traffic too.")
    try:
        yield
    finally:
        live = client.calibration(MODEL).revision
        if live in promoted:
            client.rollback(MODEL, revision=live, to=before.revision)
            say(f"Put back: what was live before, revision {before.revision}.")
        elif live != before.revision:
            say("Somebody else promoted meanwhile: what is live is left as it is.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
