"""Versions that come in over HTTP, where the setting allows it.

The body goes to a file, the rest happens elsewhere (see `service.register.upload`): what is here
knows who may, which number is free, and that this process has seen the version before it answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import anyio.to_thread
from starlette.requests import Request

from service.control.bodies import media_type, part_file, spool_body
from service.control.repository_watch import RepositoryWatch
from service.control.store import Store
from service.errors import Conflict, Forbidden, InvalidRequest, Unavailable, UnsupportedMediaType
from service.settings import Settings
from trueprob.manifest import valid_model_name
from trueprob.repository import ModelRepository

__all__ = ["AddVersion", "ModelUploads"]

FORM: Final = "multipart/form-data"


class AddVersion(Protocol):
    """Whatever makes a version of a form, or refuses with a `ServiceError` and leaves nothing."""

    def __call__(
        self, path: Path, content_type: str, *, model: str, version: int, created_at: float
    ) -> dict[str, Any]:
        """The version, as `trueprob-service register --json` describes it."""


class ModelUploads:
    """Takes versions in.

    Parameters
    ----------
    settings : Settings
    uploads : Path
        Folder for bodies while they come in.
    store : Store
    watch : RepositoryWatch
        Loads what is new.
    add_version : callable or None
        None: nothing here can run a network.
    clock : callable
        Seconds since 1970 UTC.
    """

    def __init__(
        self,
        settings: Settings,
        uploads: Path,
        store: Store,
        watch: RepositoryWatch,
        add_version: AddVersion | None,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._uploads = uploads
        self._store = store
        self._watch = watch
        self._add_version = add_version
        self._clock = clock
        # One network at a time is loaded beside those that answer.
        self._one = asyncio.Semaphore(1)

    async def add(self, request: Request, model: str) -> dict[str, Any]:
        """Add the version in a request's form.

        Returns
        -------
        dict
            The version's description, and whether it is live.

        Raises
        ------
        Forbidden
            The setting does not allow it.
        ServiceError
            The request cannot be used; nothing was added.
        """
        if not self._settings.allow_model_upload:
            raise Forbidden(
                "uploading models is off: allow_model_upload=true allows it, to keys with the "
                "scope admin"
            )
        kind = media_type(request)
        if kind != FORM:
            raise UnsupportedMediaType(f"Content-Type must be {FORM}, got {kind or 'none'}")
        if not valid_model_name(model):
            raise InvalidRequest(
                "the model's name must be 1 to 100 letters, digits, '_', '.' or '-', begin with a "
                f"letter or a digit and have no '..', got {model[:110]!r}"
            )
        await anyio.to_thread.run_sync(self._free_version, model)
        content_type = request.headers.get("content-type", "")
        with part_file(self._uploads) as path:
            limit = self._settings.max_upload_bytes
            await spool_body(request, path, limit=limit, expected="a form with a part model")
            async with self._one:
                return await anyio.to_thread.run_sync(self._added, path, content_type, model)

    def _added(self, path: Path, content_type: str, model: str) -> dict[str, Any]:
        version = self._free_version(model)
        if self._add_version is None:
            raise Unavailable("no network can be taken in here")
        document = self._add_version(
            path, content_type, model=model, version=version, created_at=self._clock()
        )
        self._watch.look()
        with self._store.read() as transaction:
            live = transaction.promotions.live(model)
        return {**document, "live": live is not None and live.version == version}

    def _free_version(self, model: str) -> int:
        """The next number that neither the repository nor the history has used."""
        with self._store.read() as transaction:
            known = transaction.models.get(model)
            if known is not None and known.declared:
                raise Conflict(
                    f"model {model!r} was declared over HTTP: its network runs elsewhere"
                )
            used = [row.version for row in transaction.models.versions(model)]
        on_disk = ModelRepository(self._settings.model_repository).next_version(model)
        return max([on_disk, *(version + 1 for version in used)])
