"""Curate images: read shards, filter, embed, score and deduplicate."""
