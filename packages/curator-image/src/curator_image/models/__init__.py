"""Finds models (hub, address, folder), reads their weights, and computes their heads."""

from __future__ import annotations

from curator_image.models.heads import LinearHead, NSFWHead
from curator_image.models.source import HubFile, ModelNotFound, locate_file, locate_folder
from curator_image.models.weights import read_weights, write_weights

__all__ = [
    "HubFile",
    "LinearHead",
    "ModelNotFound",
    "NSFWHead",
    "locate_file",
    "locate_folder",
    "read_weights",
    "write_weights",
]
