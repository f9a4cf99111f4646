"""Curate text: read, extract, filter, score and deduplicate documents."""
