"""Break a service while requests go on; exit code 1 when what it acknowledged is not so.

Without --url: a service of its own, two replicas on SQLite and then on PostgreSQL where that is
installed; faults are kill, stop, fill, hang and restart. With --url: your deployment; each fault is
a command of yours.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

from benchmarks.control.postgres_server import NoServer, postgres_server
from benchmarks.torture.deployment import CannotTest, Deployment
from benchmarks.torture.faults import command_faults, own_faults
from benchmarks.torture.own_service import OwnService
from benchmarks.torture.report import line_of, summary_of, table_head
from benchmarks.torture.run import Episode, Outcome, Torture
from trueprob.errors import InvalidInput

NAMES = ("kill", "stop", "fill", "hang", "restart")
DATABASES = ("sqlite", "postgresql")
BEFORE_IT_STARTS = """\
This breaks a deployment: {urls}
Each of these runs {times}, in a random order (seed {seed}):
{commands}
Meanwhile it sends predictions of random logits to model {model!r}, and labels that are drawn from
the answers. They stay in the statistics of that model and can add to its alarms: use a model that
nobody else labels or promotes. The key needs the scopes predict and label."""


class WrongUse(Exception):
    """An option that cannot be used; the message is one line."""


def main(arguments: Sequence[str] | None = None, *, ask: Callable[[str], str] = input) -> int:
    """Run it; 0 when all agrees, 1 when something does not, 2 when it cannot run."""
    options = parser().parse_args(arguments)
    try:
        _check(options)
        outcomes = own(options) if not options.url else {"deployment": deployment(options, ask)}
    except (WrongUse, CannotTest, InvalidInput) as error:
        print(f"torture: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if options.json:
        document = {name: asdict(outcome) for name, outcome in outcomes.items()}
        options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    for name, outcome in outcomes.items():
        print(f"\n{name}: {summary_of(outcome)}")
        for each in outcome.disagreements:
            print(f"- {each}")
    return int(any(outcome.disagreements for outcome in outcomes.values()))


def _check(options: argparse.Namespace) -> None:
    """Refuse numbers without a sense, and a result that cannot be written in the end."""
    if options.rounds < 1:
        raise WrongUse(f"--rounds must be at least 1, got {options.rounds}")
    for name in ("hold", "patience", "quiet"):
        if not 0 <= getattr(options, name) < float("inf"):
            raise WrongUse(f"--{name} must be a number of seconds, got {getattr(options, name)}")
    if options.json and (options.json.is_dir() or not options.json.absolute().parent.is_dir()):
        raise WrongUse(f"--json {options.json} cannot be written: it needs a file in a folder")


def parser() -> argparse.ArgumentParser:
    """The options."""
    new = argparse.ArgumentParser(
        prog="python -m benchmarks.torture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    new.add_argument("--rounds", type=int, default=1, help="each fault so many times")
    new.add_argument("--seed", type=int, default=0, help="of the order and of the rows")
    new.add_argument(
        "--hold",
        type=float,
        default=8.0,
        help="seconds until a fault is healed; longer if readiness must notice it first",
    )
    new.add_argument("--patience", type=float, default=120.0, help="seconds until ready at most")
    new.add_argument("--json", type=Path, metavar="FILE", help="the result as a document")
    ours = new.add_argument_group("its own service")
    ours.add_argument("--database", choices=DATABASES, help="default: both")
    ours.add_argument("--faults", default=",".join(NAMES), help="default: %(default)s")
    theirs = new.add_argument_group("your deployment")
    theirs.add_argument("--url", action="append", help="again for replicas without a proxy")
    theirs.add_argument("--model", help="one that nobody else labels or promotes")
    theirs.add_argument("--key-file", type=Path, help="its first line is a key")
    for name, text in (("fault", "begins it"), ("heal", "ends it after --hold seconds")):
        theirs.add_argument(
            f"--{name}", action="append", default=[], metavar="NAME=COMMAND", help=f"what {text}"
        )
    theirs.add_argument(
        "--quiet", type=float, default=5.0, help="seconds without labels of others at first"
    )
    theirs.add_argument("--yes", action="store_true", help="do not ask")
    return new


def own(options: argparse.Namespace) -> Mapping[str, Outcome]:
    """Torture a service of our own on each database."""
    given = [name for name in ("model", "key_file", "fault", "heal") if getattr(options, name)]
    if given:
        raise WrongUse(f"--{given[0].replace('_', '-')} needs --url, the deployment that it is for")
    names = options.faults.split(",")
    if unknown := sorted(set(names) - set(NAMES)):
        raise WrongUse(f"--faults must be among {', '.join(NAMES)}; got {', '.join(unknown)}")
    outcomes = {}
    for database in [options.database] if options.database else DATABASES:
        try:
            with _own_service(database, options.seed) as service:
                faults = [f for f in own_faults(service, options.hold) if f.name in names]
                test = Torture(
                    service, faults, seed=options.seed, operate=True,
                    patience_seconds=options.patience, say=_printing(database),
                )  # fmt: skip
                outcomes[database] = test.run(options.rounds)
        except NoServer as error:
            if options.database:
                raise WrongUse(f"--database postgresql: {error}") from None
            print(f"\n{database}: left out, {error}")
    return outcomes


@contextmanager
def _own_service(database: str, seed: int) -> Iterator[OwnService]:
    with (
        tempfile.TemporaryDirectory(prefix="trueprob-torture-") as folder,
        postgres_server() if database == "postgresql" else nullcontext() as server,
        closing(OwnService(Path(folder), server, seed=seed)) as service,
    ):
        yield service


def deployment(options: argparse.Namespace, ask: Callable[[str], str]) -> Outcome:
    """Torture a deployment of the user, if they agree."""
    if not options.model:
        raise WrongUse("--url needs --model, one that nobody else labels or promotes")
    commands, heals = _commands(options.fault, "fault"), _commands(options.heal, "heal")
    if not commands:
        raise WrongUse("--url needs a --fault NAME=COMMAND, such as kill='kubectl delete pod …'")
    if lonely := sorted(heals.keys() - commands):
        raise WrongUse(f"--heal {lonely[0]} has no --fault of that name")
    key = _key(options.key_file)
    shown = [f"  {name}: {command}" for name, command in commands.items()]
    shown += [f"  {name}, to heal it: {command}" for name, command in heals.items()]
    times = "once" if options.rounds == 1 else f"{options.rounds} times"
    print(
        BEFORE_IT_STARTS.format(
            urls=", ".join(options.url), times=times, seed=options.seed,
            commands="\n".join(shown), model=options.model,
        )
    )  # fmt: skip
    if not options.yes and not _agreed(ask):
        raise WrongUse("nothing was done; --yes does it without a question")
    with closing(
        Deployment(options.url, options.model, key, quiet_seconds=options.quiet)
    ) as target:
        faults = command_faults(commands, heals, options.hold)
        test = Torture(
            target, faults, seed=options.seed, operate=False,
            patience_seconds=options.patience, say=_printing("deployment"),
        )  # fmt: skip
        return test.run(options.rounds)


def _key(file: Path | None) -> str | None:
    """The first line of a file."""
    if file is None:
        return None
    try:
        words = file.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"--key-file {file} cannot be read: {error}") from None
    if not words:
        raise WrongUse(f"--key-file {file} is empty, expected a key in its first line")
    return words[0]


def _agreed(ask: Callable[[str], str]) -> bool:
    try:
        return ask("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _commands(given: Sequence[str], option: str) -> Mapping[str, str]:
    """NAME=COMMAND as a mapping."""
    commands: dict[str, str] = {}
    for text in given:
        name, equals, command = text.partition("=")
        if not (name and equals and command.strip()) or name in commands:
            raise WrongUse(f"--{option} must be NAME=COMMAND with a name of its own, got {text!r}")
        commands[name] = command
    return commands


def _printing(name: str) -> Callable[[Episode], None]:
    print(f"\n{name}\n\n{table_head()}", flush=True)
    return lambda episode: print(line_of(episode), flush=True)


if __name__ == "__main__":
    sys.exit(main())
