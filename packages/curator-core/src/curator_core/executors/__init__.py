"""Executors, which provide workers: their interface, and the one that needs no service."""
