"""Tables in `.csv` and `.parquet`: reads them as arrays, and writes predictions.

Both formats use the same column names, described in `columns`.
"""

from trueprob.tables.answers import array_of_ids, table_of_answers
from trueprob.tables.columns import ColumnChoice, Rows
from trueprob.tables.csv_file import read_csv
from trueprob.tables.parquet_file import read_parquet

__all__ = [
    "ColumnChoice",
    "Rows",
    "array_of_ids",
    "read_csv",
    "read_parquet",
    "table_of_answers",
]
