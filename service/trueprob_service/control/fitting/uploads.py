"""Uploads of calibration sets: received into a file, validated, stored and fitted.

Nothing is stored before the whole body is validated. When the response is sent, the set is on disk
and its fit is in the database, so a crash loses neither.
"""

from __future__ import annotations

import asyncio
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

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob_service.control.fitting.request import FitRequest, check_set_name
from trueprob_service.control.fitting.set_files import part_file
from trueprob_service.control.fitting.stored_sets import StoredSets
from trueprob_service.control.fitting.upload_body import check_media_type, read_upload
from trueprob_service.control.labels.refit_window import RefitWindow
from trueprob_service.control.models.replica_sync import ReplicaSync
from trueprob_service.control.store.calibration_sets import CalibrationSetRow
from trueprob_service.edge.bodies import media_type, spool_body
from trueprob_service.errors import Conflict, InvalidRequest, ModelNotFound
from trueprob_service.inference.deployment import Deployment, Network, ServedVersion
from trueprob_service.inference.deployments import Deployments
from trueprob_service.inference.network.input import NetworkInput
from trueprob_service.settings import Settings

__all__ = ["CalibrationSetUploads"]

# A parsed upload is in memory as a whole; other uploads wait in their files.
_PARSED_AT_ONCE: Final = 2


class CalibrationSetUploads:
    """Receives uploads and requests for fits."""

    def __init__(
        self,
        sets: StoredSets,
        window: RefitWindow,
        uploads: Path,  # folder for bodies while they are received
        *,
        deployments: Deployments,  # their networks run uploaded images
        replica_sync: ReplicaSync,  # for models that another process has just declared
        settings: Settings,
    ) -> None:
        self._sets = sets
        self._window = window
        self._uploads = uploads
        self._deployments = deployments
        self._replica_sync = replica_sync
        self._settings = settings
        self._parsing = asyncio.Semaphore(_PARSED_AT_ONCE)

    async def upload(
        self, request: Request, model: str, options: FitRequest
    ) -> tuple[int, Future[None]]:
        """Store the set in a request's body and queue its fit; returns the fit's id and a future.

        Raises `ServiceError` or `InvalidInput` for an invalid request; nothing is stored then.
        """
        deployment = await self._deployment(model, options.version)
        options.check(self._settings, n_classes=deployment.served.n_classes)
        async with self._received(request, deployment) as rows:
            return await anyio.to_thread.run_sync(
                self._sets.accept, deployment.served, rows, options
            )

    async def append(
        self, request: Request, model: str, name: str, *, version: int | None, by: str | None
    ) -> CalibrationSetRow:
        """Append the rows in a request's body to a named set; errors as in `upload`."""
        deployment = await self._deployment(model, version)
        check_set_name(name)
        async with self._received(request, deployment) as rows:
            return await anyio.to_thread.run_sync(
                lambda: self._sets.append(deployment.served, name, rows, by=by)
            )

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
    ) -> AsyncIterator[CalibrationSet]:
        """The validated rows of a body."""
        kind = media_type(request)
        check_media_type(kind)
        limit, served = self._settings.max_upload_bytes, deployment.served
        content_type = request.headers.get("content-type", "")
        with part_file(self._uploads) as path:
            await spool_body(request, path, limit=limit)
            async with self._parsing:
                upload = await anyio.to_thread.run_sync(
                    lambda: read_upload(
                        path, content_type, max_bytes=limit, n_classes=served.n_classes
                    )
                )
                arrays = upload.arrays
                pictures = upload.pictures is not None or "images" in arrays
                if pictures and "class_names" in arrays:
                    raise InvalidRequest(
                        "class_names are those of columns of numbers: leave them out with images, "
                        "whose labels may be names"
                    )
                if upload.pictures is not None:
                    arrays = await self._run_pictures(deployment, upload.pictures, arrays)
                elif "images" in arrays:
                    arrays = await self._run_images(deployment, arrays)
                rows = await anyio.to_thread.run_sync(
                    lambda: CalibrationSet.from_arrays(
                        arrays, n_classes=served.n_classes, class_names=served.class_names
                    )
                )
                # In the order of the version; the database has the names. So every format of the
                # same rows has the same digest.
                yield replace(rows, class_names=None)

    async def _deployment(self, model: str, version: int | None) -> Deployment:
        try:
            return self._deployments.current(model, version)
        except ModelNotFound:
            await anyio.to_thread.run_sync(self._replica_sync.sync)
            return self._deployments.current(model, version)

    async def _run_images(
        self, deployment: Deployment, arrays: dict[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Replace the images by the logits of the version's network."""
        network, accepted = _network_of(deployment)
        others = {"logits", "probabilities", "log_probabilities"} & set(arrays)
        if others:
            raise InvalidRequest(f"images and {min(others)} must not come together")
        images = await anyio.to_thread.run_sync(lambda: accepted.check(arrays["images"]))
        step = self._settings.max_batch_rows
        batches = []
        for start in range(0, len(images), step):
            tensor = await anyio.to_thread.run_sync(accepted.tensor, images[start : start + step])
            batches.append(await network.run(tensor))
        rest = {name: values for name, values in arrays.items() if name != "images"}
        return {**rest, "logits": np.concatenate(batches)}

    async def _run_pictures(
        self, deployment: Deployment, pictures: list[bytes], rest: dict[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """As `_run_images`, for encoded pictures, which are decoded batch by batch."""
        network, accepted = _network_of(deployment)
        step, max_pixels = self._settings.max_batch_rows, self._settings.max_image_pixels
        batches = []
        for start in range(0, len(pictures), step):
            part = pictures[start : start + step]
            decode = functools.partial(accepted.decode, part, max_pixels=max_pixels, first=start)
            batches.append(await network.run(await anyio.to_thread.run_sync(decode)))
        return {**rest, "logits": np.concatenate(batches)}


def _network_of(deployment: Deployment) -> tuple[Network, NetworkInput]:
    manifest = deployment.served.manifest
    if deployment.network is None or manifest is None or manifest.input is None:
        raise InvalidRequest(
            f"version {deployment.served.version} of model {deployment.served.model!r} "
            "has no network here: send logits in place of images"
        )
    return deployment.network, NetworkInput.from_manifest(manifest.input)
