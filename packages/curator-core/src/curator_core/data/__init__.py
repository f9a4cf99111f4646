"""Data of any format, for people to look at: files, their rows, single rows, and the contents of columns."""
