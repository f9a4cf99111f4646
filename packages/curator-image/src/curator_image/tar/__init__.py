"""Reads and writes tar archives as streams."""
