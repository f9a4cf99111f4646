"""Where a stage is run: one adapter for every executor, and groups of stages around it."""
