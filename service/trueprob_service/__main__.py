"""The command ``trueprob-service``: serve (default), register, keys, audit, moving the state."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import logging
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trueprob_service.errors import InvalidSettings
from trueprob_service.logs import configure_logging
from trueprob_service.settings import Settings, load_settings

__all__ = ["main"]

# What a state folder holds, by which it is recognised.
# What the names of files and folders in the state directory begin with.
_OURS: Final = (
    "calibration-sets",
    "inspections",
    "metrics-targets.json",
    "receipt-secret",
    "trueprob.sqlite3",
    "uploads",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The command's name and its arguments; default: those of the process.

    Returns
    -------
    int
        0 after success, 1 when the service could not start or stay up or the audit trail was
        changed, 2 for bad input (one line on standard error).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "serve"
    if command in ("keys", "audit"):
        from trueprob_service.administration import audit_command, keys_command

        return (keys_command if command == "keys" else audit_command)(arguments, os.environ)
    if command == "register":
        from trueprob_service.register.command import main as register

        return register(arguments, os.environ)
    if command in ("export-state", "import-state"):
        return _move_state(command, arguments)
    if command != "serve":
        print(
            f"trueprob-service: error: unknown command {command!r}, expected serve, register, "
            "keys, audit, export-state or import-state",
            file=sys.stderr,
        )
        return 2
    try:
        settings, warnings = load_settings(arguments, os.environ)
        return _serve(settings, warnings)
    except InvalidSettings as error:
        print(f"trueprob-service: error: {error}", file=sys.stderr)
        return 2


def _make_private(state_dir: Path) -> None:
    """Let no other user read what this process writes, nor what is in a folder from before."""
    os.umask(0o077)
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        ours = [path for path in state_dir.iterdir() if path.name.startswith(_OURS)]
        if not ours and any(state_dir.iterdir()):
            return  # a folder that is used for other things
        below = [path for each in ours if not each.is_symlink() for path in each.rglob("*")]
        for path in (state_dir, *ours, *below):
            with contextlib.suppress(FileNotFoundError):  # another process removes what it made
                mode = path.lstat().st_mode
                if mode & 0o077 and not stat.S_ISLNK(mode):
                    path.chmod(stat.S_IMODE(mode) & 0o700)
    except OSError as error:
        raise InvalidSettings(f"state_dir: {state_dir} cannot be used: {error.strerror}") from None


def _serve(settings: Settings, warnings: Sequence[str]) -> int:
    configure_logging(settings.log_format)
    for warning in warnings:
        logging.getLogger("trueprob_service.settings").warning(warning)
    from trueprob_service.receipts.secrets import open_receipt_keys
    from trueprob_service.schema_check import refuse_unusable_state

    _make_private(settings.state_dir)
    if settings.traces:
        from trueprob_service.tracing import require_otel

        require_otel()
    # Checked here for a one-line message: replicas would fail and be restarted.
    open_receipt_keys(settings.receipt_secrets, settings.receipt_secret_file)
    replicas = settings.replicas > 1 or settings.metrics_port is not None
    try:
        refuse_unusable_state(settings.resolved_database_url, settings.state_dir, in_child=replicas)
    except ValueError as error:
        raise InvalidSettings(str(error)) from None
    if replicas:
        from trueprob_service.replicas.supervisor import serve_replicas

        return serve_replicas(settings)
    from trueprob_service.replicas.listening import CannotListen, refuse_taken_port

    try:
        refuse_taken_port(settings)  # before the models are loaded
    except CannotListen as error:
        raise InvalidSettings(str(error)) from None
    from trueprob_service.app import create_app
    from trueprob_service.server import Drain, limited_connections, serve

    drain, connections = Drain(), limited_connections(settings)
    app = create_app(settings, drain=drain, connections=connections)
    return serve(app, settings, drain, connections)


def _local_actor() -> str:
    """Whoever runs this command, for the audit trail."""
    try:
        return f"local:{getpass.getuser()}"
    except (OSError, KeyError):  # a user id without a name, as in containers
        return f"local:{os.getuid()}" if hasattr(os, "getuid") else "local:unknown"


def _move_state(command: str, arguments: list[str]) -> int:
    from trueprob_service.control.fitting.set_location import open_set_files
    from trueprob_service.control.store import open_store
    from trueprob_service.control.upkeep.archive import export_state, import_state
    from trueprob_service.edge.auth import ACTOR
    from trueprob_service.errors import ServiceError

    prog = f"trueprob-service {command}"
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} FILE [settings of serve]",
        description="Write the whole state of the service to a file. The service may be running."
        if command == "export-state"
        else "Read an exported file into an empty database. The service must not be running.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a .zip file; keep it secret")
    options, rest = parser.parse_known_args(arguments)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        settings, _ = load_settings(rest, os.environ)
        _make_private(settings.state_dir)
        set_files = open_set_files(settings.state_dir, settings.artifact_url)
        store = open_store(settings.resolved_database_url, timeout_seconds=0)
        acting = ACTOR.set((_local_actor(), ""))
        try:
            move = export_state if command == "export-state" else import_state
            counts = move(store, set_files, options.file)
        finally:
            ACTOR.reset(acting)
            store.close()
    except (InvalidSettings, ServiceError, ValueError) as error:
        print(f"trueprob-service: error: {error}", file=sys.stderr)
        return 2
    for table, n in counts.items():
        print(f"{table}: {n}")
    if command == "export-state":
        file = None if settings.receipt_secrets.strip() else settings.receipt_secret_file
        print(
            "The secrets that sign receipts are not in it: keep "
            f"{file or 'TRUEPROB_RECEIPT_SECRETS'} too.",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
