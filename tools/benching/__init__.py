"""The benchmark runner: reading the file (suite), running (runner, processes, data), judging and showing (gates,
report).
"""
