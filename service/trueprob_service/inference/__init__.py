"""The data plane: a request's bytes to logits, and logits to the bytes of a calibrated answer.

A prediction passes through these modules in order: `asgi` finds the route, `request` reads headers
and query, `deployments` returns the live `deployment`, `body` receives the body and turns it into
logits (formats in `wire`, pictures through `network`), `answer` calibrates them and picks the
fields, and `wire` writes those. `open_inference` does the same for the Open Inference Protocol.

There is no pydantic and no database here, so predictions continue when the database is down.
"""
