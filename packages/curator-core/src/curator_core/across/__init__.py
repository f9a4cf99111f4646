"""Work across rows: shuffles, groups, the numbers of documents, and tables of decisions."""
