"""Models that another process has declared a moment ago: asked for before a client is told no.

Other processes' changes are found every few seconds. A client that declares a model and uses it at
once would be told by every second replica that there is none, so a name that is not known has the
database looked at first. Requests that wait for one another share a look: names that nobody has
declared cost one query at a time, however many are asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from trueprob_service.errors import ModelNotFound
from trueprob_service.inference.deployment import Deployment
from trueprob_service.inference.deployments import Deployments

__all__ = ["Elsewhere"]


class Elsewhere:
    """Deployments of this process and, on second thoughts, of others."""

    def __init__(self, deployments: Deployments, look: Callable[[], None]) -> None:
        self._deployments = deployments
        self._look = look
        self._looking = asyncio.Lock()
        self._began = 0.0

    async def current(self, model: str, version: int | None = None) -> Deployment:
        """As `Deployments.current`, after a look at the database for a name that is not known.

        Raises `DatabaseUnavailable`: the name is not known here, and nobody can be asked.
        """
        try:
            return self._deployments.current(model, version)
        except ModelNotFound:
            asked = time.monotonic()
            async with self._looking:
                if self._began <= asked:
                    self._began = time.monotonic()
                    await asyncio.to_thread(self._look)
        return self._deployments.current(model, version)

    def versions(self, model: str) -> list[int]:
        """As `Deployments.versions`: those known here."""
        return self._deployments.versions(model)
