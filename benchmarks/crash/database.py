"""What the benchmark reads from the database, because the service does not report it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, func, make_url, select

from trueprob_service.control.store.tables import fit, label_key

__all__ = ["count_label_keys", "judged_revision"]


def count_label_keys(database_url: str) -> int:
    """The number of labels that the service can still recognise."""
    with _connected(database_url) as connection:
        return int(connection.execute(select(func.count()).select_from(label_key)).scalar_one())


def judged_revision(database_url: str, fit_id: str) -> int | None:
    """The live revision that a fit was judged against; None before the fit is done."""
    found = select(fit.c.judged_revision).where(fit.c.id == int(fit_id))
    with _connected(database_url) as connection:
        revision: int | None = connection.execute(found).scalar_one()
        return revision


@contextmanager
def _connected(database_url: str) -> Iterator[Connection]:
    url = make_url(database_url.replace("postgresql:", "postgresql+psycopg:"))
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
