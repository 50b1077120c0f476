"""The database. Only this package imports SQLAlchemy.

`Store.write` and `Store.read` give a `Transaction` with one attribute for each table or group of
tables; the classes behind them are named ...Table, their rows ...Row::

    with store.write() as transaction:
        live = transaction.promotions.live("digits")

The same statements run on SQLite and on PostgreSQL.
"""

from trueprob_service.control.store.database.faults import FAULTS
from trueprob_service.control.store.database.probe import folder_fault
from trueprob_service.control.store.engine import (
    Store,
    Transaction,
    UnknownSchema,
    open_store,
    refuse_unknown_schema,
)

__all__ = [
    "FAULTS",
    "Store",
    "Transaction",
    "UnknownSchema",
    "folder_fault",
    "open_store",
    "refuse_unknown_schema",
]
