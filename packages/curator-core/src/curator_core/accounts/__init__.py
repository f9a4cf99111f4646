"""What became of every source: events, the ledger that stores them, and the check that nothing is missing."""
