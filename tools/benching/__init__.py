"""The benchmark runner: what the file says (suite), what runs (runner, processes, data), what is judged and shown (gates, report)."""
