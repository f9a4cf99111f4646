"""The page of a run, drawn from its numbers alone: ``report.html``."""
