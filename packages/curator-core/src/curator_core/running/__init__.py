"""Runs, from the plan to the verdict, and the content of their run directories."""
