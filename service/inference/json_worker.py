"""One child process that parses large JSON bodies, and what both ends of its pipe say.

A body goes over as bytes, behind the length of an Open Inference request's JSON. An array comes
back as its type, its shape and its bytes, pictures as bytes, never as lists of numbers; an error
comes back as itself.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.child_process import Child
from service.errors import ServiceError, Unavailable
from service.inference import wire_json, wire_oip

__all__ = ["JsonWorker", "parse_forever"]

Decoded = TypeVar("Decoded")
_PREDICTION: Final = "prediction"  # in place of the JSON's length: a body of our own route


def parse_forever(connection: Connection) -> None:
    """What the child does: answer each body, until the other end closes."""
    while True:
        try:
            header_length = connection.recv()
            body = connection.recv_bytes()
        except EOFError:
            return
        try:
            if header_length != _PREDICTION:
                # Pickled arrays are their bytes behind a few words.
                connection.send(wire_oip.decode(body, header_length))
                continue
            name, values = wire_json.decode(body)
        except ServiceError as error:
            connection.send(error)
            continue
        if isinstance(values, list):
            connection.send((name, len(values)))
            for picture in values:
                connection.send_bytes(picture)
        else:
            connection.send((name, (values.dtype.str, values.shape)))
            connection.send_bytes(values.tobytes())


class JsonWorker:
    """The parent's end: starts the child when it is first needed, and again after it died.

    Parameters
    ----------
    target : callable, optional
        What the child executes.
    """

    def __init__(self, target: Callable[[Connection], None] = parse_forever) -> None:
        self._child = Child(target, name="trueprob-json")

    @property
    def pid(self) -> int | None:
        """Of the child; None while there is none."""
        return self._child.pid

    def decode(self, body: bytes) -> tuple[str, NDArray[Any] | list[bytes]]:
        """`wire_json.decode`, elsewhere. Called by one thread at a time.

        Raises
        ------
        ServiceError
            As `wire_json.decode`; Unavailable when the child died of this body, or before it and
            again, and when it was closed.
        """
        return self._asked(lambda connection: _prediction(connection, body))

    def decode_inference(self, body: bytes, header_length: int | None) -> wire_oip.InferenceRequest:
        """`wire_oip.decode`, elsewhere. Called by one thread at a time.

        Raises
        ------
        ServiceError
            As `wire_oip.decode`, and as `decode`.
        """
        return self._asked(lambda connection: _inference(connection, body, header_length))

    def close(self) -> None:
        """End the child, in the middle of a body if need be."""
        self._child.close()

    def _asked(self, exchange: Callable[[Connection], Decoded]) -> Decoded:
        for _ in range(2):
            connection = self._child.connection()
            if connection is None:
                raise Unavailable("the service is stopping")
            try:
                return exchange(connection)
            except (EOFError, OSError):
                self._child.let_go()
        raise Unavailable("the process that parses large JSON bodies ended while it had this one")


def _answer(connection: Connection, header_length: int | str | None, body: bytes) -> Any:
    connection.send(header_length)
    connection.send_bytes(body)
    answer = connection.recv()
    if isinstance(answer, ServiceError):
        raise answer
    return answer


def _inference(
    connection: Connection, body: bytes, header_length: int | None
) -> wire_oip.InferenceRequest:
    request: wire_oip.InferenceRequest = _answer(connection, header_length, body)
    return request


def _prediction(connection: Connection, body: bytes) -> tuple[str, NDArray[Any] | list[bytes]]:
    name, form = _answer(connection, _PREDICTION, body)
    if isinstance(form, int):
        return name, [connection.recv_bytes() for _ in range(form)]
    dtype, shape = form
    return name, np.frombuffer(connection.recv_bytes(), dtype).reshape(shape)
