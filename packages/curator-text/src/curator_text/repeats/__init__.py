"""What occurs more than once in a corpus, spans of words or lines: found exactly, and cut, marked, or counted against a document."""
