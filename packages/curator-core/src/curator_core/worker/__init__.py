"""How stages run: one adapter for all executors, and groups of stages around it."""
