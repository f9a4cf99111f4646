"""Finds images that show the same picture: hashes, search, comparison, and a workflow."""
