"""Where workers come from: what an executor must do, and the one that needs no service."""
