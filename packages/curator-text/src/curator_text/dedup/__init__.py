"""Deduplication: words, sketches and comparisons of documents, as functions of arrays."""
