"""Remembered predictions: what a label by the caller's own id needs, written behind the answers.

`writer` takes answered rows from the queue of the requests and writes them as blocks (`blocks`),
every ``remember_flush_seconds``. `merging` merges small blocks and forgets old ones. `lookup` finds
the predictions of many ids at once, as receipts.
"""
