"""A run, from plan to verdict, and what it keeps in its run directory."""
