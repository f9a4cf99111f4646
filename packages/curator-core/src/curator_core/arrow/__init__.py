"""Arrow without pandas: arrays, scalars and hashes of rows."""
