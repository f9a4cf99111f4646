"""Tar archives as a stream, in and out."""
