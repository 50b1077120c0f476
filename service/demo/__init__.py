"""``python -m service demo``, ``make demo``: a minute in which a model's conditions change.

A client like any other: it sends pictures and, later, their labels over HTTP, and every number that
it shows was answered by the service (`readings`). It imports nothing of the service.

    command ──▶ stage, own_service (only where none runs)
       └──────▶ telling ──▶ pictures, pace, screen
                   ├──────▶ traffic ──▶ trueprob.client
                   └──────▶ readings ─▶ trueprob.client
"""
