"""Finds images that show the same picture: hashes, search, comparison, and the workflow that decides."""
