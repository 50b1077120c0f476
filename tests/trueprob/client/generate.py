"""Generate `trueprob/client/async_client.py` from `client.py`: the same methods as coroutines.

    python -m tests.trueprob.client.generate

Every method except the constructor becomes a coroutine, and every call of a method on ``self`` is
awaited; the rest is names. A test checks that the file in the tree is what this script writes.

The docstrings are copied in full, although "see `Client.predict`" would save 280 lines. Signatures
give names and types, but not that `images` are PNG, JPEG or WebP files, that `wait_seconds` ends at
60, or what the values of `promote` mean. Users of `AsyncClient` read this in `help` and in the
tooltips of their editor, which do not follow a reference. Nobody maintains the copy.
"""

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[3] / "trueprob" / "client"
WRITTEN = PACKAGE / "client.py"
GENERATED = PACKAGE / "async_client.py"
LINE_LENGTH = 100

DOCSTRING = '''"""The asynchronous client, generated from ``client.py``: edit that file.

Then run ``python -m tests.trueprob.client.generate``. The file is longer than 500 lines because
``client.py`` is: every route is a method of one class, documented for `help`.
"""
'''

REPLACEMENTS = (
    (r'\A""".*?"""\n', DOCSTRING),
    (r"(?m)^    def (?!__init__)", "    async def "),
    (r"\bself\.(\w+(?:\.\w+)?)\(", r"await self.\1("),
    (r"__(enter|exit)__", r"__a\1__"),
    (r"\bClient\b", "AsyncClient"),
    (r"\bHttpRequest, ServiceConnection\b", "AsyncServiceConnection, HttpRequest"),  # sorted
    (r"\bServiceConnection\b", "AsyncServiceConnection"),
    (r"\bhttpx\.BaseTransport\b", "httpx.AsyncBaseTransport"),
    # Docstrings:
    (r"\bin a ``with`` block", "in an ``async with`` block"),
    (r">>> with ", ">>> async with "),
    (r"\bclient\.(\w+)\(", r"await client.\1("),
)


def async_source(source: str) -> str:
    """The source of the asynchronous client, made from that of the blocking one."""
    for pattern, replacement in REPLACEMENTS:
        source, count = re.subn(pattern, replacement, source, flags=re.DOTALL)
        assert count, f"nothing in {WRITTEN.name} matches {pattern}"
    long = [line for line in source.splitlines() if len(line) > LINE_LENGTH]
    assert not long, f"break these lines of {WRITTEN.name} earlier: {long}"
    return source


if __name__ == "__main__":
    GENERATED.write_text(async_source(WRITTEN.read_text("utf-8")), "utf-8")
