"""A minimal ASGI application with the same answers: no checks, keys or metrics."""

from __future__ import annotations

import sys
from typing import Any

import orjson
import uvicorn

from benchmarks.serving.cases import all_work, npy, read_npy

WORK = all_work()
JSON, NPY = b"application/json", b"application/x-npy"


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    if scope["method"] == "GET":
        await reply(send, b"{}", JSON)
        return
    model = scope["path"].split("/")[3]
    headers = dict(scope["headers"])
    body, more = b"", True
    while more:
        message = await receive()
        part = message.get("body", b"")
        body = body + part if body else part
        more = message.get("more_body", False)
    is_json = headers.get(b"content-type") == JSON
    logits = orjson.loads(body)["logits"] if is_json else read_npy(body)
    if headers.get(b"accept") == NPY:
        answer, media_type = npy(WORK[model].probabilities(logits)), NPY
    else:
        answer, media_type = (
            orjson.dumps(WORK[model].fields(logits), option=orjson.OPT_SERIALIZE_NUMPY),
            JSON,
        )
    await reply(send, answer, media_type)


async def reply(send: Any, body: bytes, media_type: bytes) -> None:
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(application, port=int(sys.argv[1]), access_log=False, log_level="warning")
