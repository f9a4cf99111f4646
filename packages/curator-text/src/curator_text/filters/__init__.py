"""Filters over a column of text."""
