"""Gives tables with different types one schema without changing values; JSON is used if no other type holds the values."""

from __future__ import annotations

import pyarrow as pa

from curator_core.arrow import widening
from curator_text.json_text import json_values


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns and types of a schema that `one_schema` has made for this table and others."""
    return widening.fitted(table, schema, json_values)
