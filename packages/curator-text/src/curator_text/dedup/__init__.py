"""Deduplication: words, sketches and the comparison of documents, as functions of arrays."""
