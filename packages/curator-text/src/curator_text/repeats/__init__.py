"""Finds spans of words or lines that occur more than once in a corpus, exactly, and cuts, marks or counts them."""
