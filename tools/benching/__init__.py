"""The benchmark runner: reads the file (suite), runs commands (runner, processes, data), and checks and shows results
(gates, report).
"""
