"""Where workers come from: what an executor must do, and the executor that needs no service."""
