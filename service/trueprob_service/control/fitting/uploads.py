"""Uploads of calibration sets: received into a file, validated, stored and fitted.

Nothing is stored before the whole body is validated. When the response is sent, the set is on disk
and its fit is in the database, so a crash loses neither.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from trueprob.arrays.calibration_set import NAMES, CalibrationSet
from trueprob_service.control.fitting.request import FitRequest, check_set_name
from trueprob_service.control.fitting.set_files import part_file
from trueprob_service.control.fitting.stored_sets import StoredSets
from trueprob_service.control.fitting.upload_body import (
    Upload,
    bytes_in_memory,
    check_media_type,
    conversions,
    read_upload,
)
from trueprob_service.control.labels.refit_window import RefitWindow
from trueprob_service.control.models.replica_sync import ReplicaSync
from trueprob_service.control.store.calibration_sets import CalibrationSetRow
from trueprob_service.edge.bodies import media_type, spool_body, upload_limit
from trueprob_service.errors import Conflict, InvalidRequest, ModelNotFound
from trueprob_service.inference.deployment import Deployment, ServedVersion
from trueprob_service.inference.deployments import Deployments
from trueprob_service.settings import Settings

__all__ = ["CalibrationSetUploads", "UploadMemory", "return_freed_memory"]

# A parsed upload is in memory as a whole; other uploads wait in their files.
_PARSED_AT_ONCE: Final = 2


class UploadMemory:
    """Bytes that uploads may take while they are parsed; granted in the order of requests."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._turn = asyncio.Lock()
        self._returned = asyncio.Event()

    @asynccontextmanager
    async def held(self, n_bytes: int) -> AsyncIterator[None]:
        """Context that has its share; one that needs more than all has all, and is alone."""
        share = min(max(n_bytes, self._total // _PARSED_AT_ONCE), self._total)
        async with self._turn:
            while self._free < share:
                self._returned.clear()
                await self._returned.wait()
            self._free -= share
        try:
            yield
        finally:
            self._free += share
            self._returned.set()


def return_freed_memory() -> None:
    """Give memory that was freed back to the system, where the C library is glibc.

    It keeps what lies between blocks that are in use, in an arena for each thread: about 26 KiB
    more after every upload of 400 rows.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return
    trim(0)


class CalibrationSetUploads:
    """Receives uploads and requests for fits."""

    def __init__(
        self,
        sets: StoredSets,
        window: RefitWindow,
        uploads: Path,  # folder for bodies while they are received
        *,
        deployments: Deployments,  # their networks run uploaded pictures and rows
        replica_sync: ReplicaSync,  # for models that another process has just declared
        settings: Settings,
    ) -> None:
        self._sets = sets
        self._window = window
        self._uploads = uploads
        self._deployments = deployments
        self._replica_sync = replica_sync
        self._settings = settings
        self._memory = UploadMemory(_PARSED_AT_ONCE * settings.max_upload_bytes)

    async def upload(
        self, request: Request, model: str, options: FitRequest
    ) -> tuple[int, Future[None], tuple[str, ...]]:
        """Store the set in a request's body and queue its fit.

        Returns the fit's id, a future, and notes on how the body was understood.
        Raises `ServiceError` or `InvalidInput` for an invalid request; nothing is stored then.
        """
        deployment = await self._deployment(model, options.version)
        options.check(self._settings, n_classes=deployment.served.n_classes)
        async with self._received(request, deployment) as (rows, notes):
            fit_id, done = await anyio.to_thread.run_sync(
                self._sets.accept, deployment.served, rows, options
            )
        return fit_id, done, notes

    async def append(
        self, request: Request, model: str, name: str, *, version: int | None, by: str | None
    ) -> tuple[CalibrationSetRow, tuple[str, ...]]:
        """Append the rows in a request's body to a named set; notes and errors as in `upload`."""
        deployment = await self._deployment(model, version)
        check_set_name(name)
        async with self._received(request, deployment) as (rows, notes):
            row = await anyio.to_thread.run_sync(
                lambda: self._sets.append(deployment.served, name, rows, by=by)
            )
        return row, notes

    async def fit(
        self, model: str, digest_or_name: str | None, options: FitRequest
    ) -> tuple[int, Future[None]]:
        """Queue a fit of a stored set, or of the refit window (None); otherwise like `upload`."""
        deployment = await self._deployment(model, options.version)
        options.check(self._settings, n_classes=deployment.served.n_classes)
        if digest_or_name is None:
            return await anyio.to_thread.run_sync(self._fit_window, deployment.served, options)
        return await anyio.to_thread.run_sync(
            self._sets.fit, deployment.served, digest_or_name, options
        )

    def _fit_window(self, served: ServedVersion, options: FitRequest) -> tuple[int, Future[None]]:
        rows = self._window.read(served.model, served.version)
        if rows is None:
            raise Conflict(
                f"the refit window of version {served.version} of model {served.model!r} is empty: "
                "send labels as rows to fill it"
            )
        return self._sets.accept(served, rows, options)

    @asynccontextmanager
    async def _received(
        self, request: Request, deployment: Deployment
    ) -> AsyncIterator[tuple[CalibrationSet, tuple[str, ...]]]:
        """The validated rows of a body, and notes on how it was understood."""
        kind = media_type(request)
        check_media_type(kind)
        max_bytes, served = self._settings.max_upload_bytes, deployment.served
        content_type = request.headers.get("content-type", "")
        await anyio.to_thread.run_sync(return_freed_memory)  # of the upload before
        with part_file(self._uploads) as path:
            await spool_body(request, path, limit=upload_limit(max_bytes, kind))
            needed = await anyio.to_thread.run_sync(
                lambda: bytes_in_memory(
                    path, content_type, max_bytes=max_bytes, n_classes=served.n_classes
                )
            )
            async with self._memory.held(needed):
                upload = await anyio.to_thread.run_sync(
                    lambda: read_upload(path, content_type, max_bytes=max_bytes)
                )
                arrays = await self._run_network(deployment, upload)
                rows = await anyio.to_thread.run_sync(
                    lambda: deployment.calibrator.masked_set(
                        CalibrationSet.from_arrays(
                            arrays, n_classes=served.n_classes, class_names=served.class_names
                        )
                    )
                )
                # In the order of the version; the database has the names. So every format of the
                # same rows has the same digest.
                notes = await anyio.to_thread.run_sync(conversions, upload.arrays)
                yield replace(rows, class_names=None), (*upload.notes, *notes)

    async def _deployment(self, model: str, version: int | None) -> Deployment:
        try:
            return self._deployments.current(model, version)
        except ModelNotFound:
            await anyio.to_thread.run_sync(self._replica_sync.sync)
            return self._deployments.current(model, version)

    async def _run_network(self, deployment: Deployment, upload: Upload) -> dict[str, NDArray[Any]]:
        """The arrays, with the network's logits in place of what is for the network."""
        arrays, pictures = dict(upload.arrays), upload.pictures
        if pictures is None and upload.inputs is None and set(arrays) <= {*NAMES}:
            return arrays
        served, network = deployment.served, deployment.network
        accepted = None if network is None else served.inputs
        if network is None or accepted is None:
            if pictures is None and upload.inputs is None and not {"images", "rows"} & set(arrays):
                return arrays
            raise InvalidRequest(
                f"version {served.version} of model {served.model!r} has no network here: send "
                "logits in place of images, rows or inputs"
            )
        step = self._settings.max_batch_rows
        rows = await anyio.to_thread.run_sync(accepted.take, arrays, pictures, upload.inputs)
        if rows is None:
            return arrays
        max_pixels = self._settings.max_image_pixels
        batches = []
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            prepare = functools.partial(accepted.tensors, part, max_pixels=max_pixels, first=start)
            batches.append(await network.run(await anyio.to_thread.run_sync(prepare)))
        return {**arrays, "logits": np.concatenate(batches)}
