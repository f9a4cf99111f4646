"""Workflows that take several pipelines: deduplication, best fractions, clusters, sorting."""
