"""What became of every source: events, the ledger that keeps them, and the judge of whether anything is missing."""
