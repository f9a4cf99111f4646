"""Work that takes several pipelines: deduplication, best fractions."""
