"""Work across rows: shuffles, groups, decisions, and what reads them. It knows no modality and no engine."""
