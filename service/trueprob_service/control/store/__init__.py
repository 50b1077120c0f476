"""The database, one noun a file. SQLAlchemy is known here and nowhere else.

`Store.write` and `Store.read` give a `Transaction`, whose attributes are the nouns::

    with store.write() as transaction:
        live = transaction.promotions.live("digits")

The same statements run on SQLite and on PostgreSQL.
"""

from trueprob_service.control.store.engine import (
    Store,
    UnknownSchema,
    open_store,
    refuse_unknown_schema,
)
from trueprob_service.control.store.transaction import Transaction

__all__ = ["Store", "Transaction", "UnknownSchema", "open_store", "refuse_unknown_schema"]
