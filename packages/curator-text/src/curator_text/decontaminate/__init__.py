"""Overlap of documents with test sets: finding it, and dropping, cutting or marking what overlaps."""

from curator_text.decontaminate.counts import CountTestNgrams
from curator_text.decontaminate.stage import Decontaminate
from curator_text.decontaminate.workflow import Decontamination

__all__ = ["CountTestNgrams", "Decontaminate", "Decontamination"]
