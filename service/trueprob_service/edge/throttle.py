"""Rates of keys, and what happens to addresses that send wrong keys.

`RateLimiter` is the generic cell rate algorithm (ITU-T I.371): one number for each key, the time at
which its allowance is full again. Each process counts for itself.

`WrongKeys` delays the answers to an address that keeps sending keys which are not accepted, and
logs them in summary. Right keys are never delayed: others may share the address. Memory is bounded
in both.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trueprob_service.errors import TooManyRequests

__all__ = ["Rate", "RateLimiter", "WrongKeys"]

_LOG: Final = logging.getLogger(__name__)
_UNITS: Final = {"s": 1.0, "second": 1.0, "m": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
_RATE: Final = re.compile(r"([1-9][0-9]{0,8}) ?/ ?([a-z]+)")
_MOST_KEYS: Final = 10_000
_MOST_ADDRESSES: Final = 10_000
_FREE_FAILURES: Final = 10.0  # answered at once
_FORGIVEN_SECONDS: Final = 6.0  # after which one failure is forgotten
_FIRST_DELAY_SECONDS: Final = 0.1  # doubles with each further failure
_LONGEST_DELAY_SECONDS: Final = 2.0
_MOST_WAITING: Final = 256  # delayed answers at a time; each holds a connection
_LOG_SECONDS: Final = 10.0  # between two lines


@dataclass(frozen=True)
class Rate:
    """Requests in a time; all of them may come at once."""

    requests: int
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read ``100/second``, ``100/s``, ``600/minute`` or ``1000/hour``; raises `ValueError`."""
        match = _RATE.fullmatch(text)
        if match is None or match[2] not in _UNITS:
            raise ValueError(
                f"expected requests per second, minute or hour, as in 100/second, got {text[:40]!r}"
            )
        return cls(int(match[1]), _UNITS[match[2]])


class RateLimiter:
    """How much of its rate each key has used."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock  # monotonic seconds
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, name: str, rate: Rate) -> None:
        """Count one request; raises `TooManyRequests` if the key is over its rate."""
        now, each = self._clock(), rate.seconds / rate.requests
        full_at = max(self._full_at.get(name, now), now) + each
        excess = full_at - now - rate.seconds
        if excess > 1e-9 * rate.seconds:
            raise TooManyRequests(
                f"key {name!r} may send {rate.requests} requests in {rate.seconds:g} s",
                retry_after_seconds=max(1, math.ceil(excess)),
                reason="rate",
            )
        self._full_at[name] = full_at
        self._full_at.move_to_end(name)
        if len(self._full_at) > _MOST_KEYS:
            self._full_at.popitem(last=False)


class WrongKeys:
    """Failures of each address, how long its next answer waits, and the log of them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock  # monotonic seconds
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()  # number, when
        self._unlogged: Counter[str] = Counter()
        self._logged_at = -math.inf
        self.waiting = 0  # answers that are delayed now

    def delay(self, address: str, detail: str) -> float:
        """Count and log a failure; returns for how many seconds its answer should wait.

        Raises `TooManyRequests` if too many answers are delayed already.
        """
        now, place = self._clock(), _network(address)
        self._log(now, place, detail)
        before, at = self._failures.get(place, (0.0, now))
        failures = max(0.0, before - (now - at) / _FORGIVEN_SECONDS) + 1
        failures = min(failures, 3 * _FREE_FAILURES)
        self._failures[place] = (failures, now)
        self._failures.move_to_end(place)
        if len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)
        excess = failures - _FREE_FAILURES
        if excess <= 0:
            return 0.0
        if self.waiting >= _MOST_WAITING:
            raise TooManyRequests(
                "too many requests with wrong keys; send the right key, or try again later",
                retry_after_seconds=math.ceil(_LONGEST_DELAY_SECONDS),
            )
        return min(_FIRST_DELAY_SECONDS * math.exp2(excess - 1), _LONGEST_DELAY_SECONDS)

    def _log(self, now: float, place: str, detail: str) -> None:
        if place in self._unlogged or len(self._unlogged) < _MOST_ADDRESSES:
            self._unlogged[place] += 1
        else:
            self._unlogged["other addresses"] += 1
        if now - self._logged_at < _LOG_SECONDS:
            return
        n, addresses = self._unlogged.total(), len(self._unlogged)
        (most, times), *_ = self._unlogged.most_common(1)
        _LOG.warning(
            "%d requests with keys that are not accepted, from %d addresses, %d of them from %s; "
            "the last one: %s",
            n, addresses, times, most, detail,
        )  # fmt: skip
        self._unlogged.clear()
        self._logged_at = now


def _network(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address: one host may have all of it."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    if ip.version == 4:
        return address
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
