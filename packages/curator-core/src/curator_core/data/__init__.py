"""Data of any format as a person looks at it: which files there are, their rows, one row, what the columns hold."""
