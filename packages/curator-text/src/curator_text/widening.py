"""Gives tables of several types one schema without changing a value; JSON holds what no other type can."""

from __future__ import annotations

import pyarrow as pa

from curator_core.arrow import widening
from curator_text.json_text import json_values


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with exactly the columns and types of a schema that `one_schema` has made for it and others."""
    return widening.fitted(table, schema, json_values)
