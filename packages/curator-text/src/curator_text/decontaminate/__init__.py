"""Finds overlaps of documents with test sets, and drops, cuts or marks them."""

from curator_text.decontaminate.counts import CountTestNgrams
from curator_text.decontaminate.stage import Decontaminate
from curator_text.decontaminate.workflow import Decontamination

__all__ = ["CountTestNgrams", "Decontaminate", "Decontamination"]
