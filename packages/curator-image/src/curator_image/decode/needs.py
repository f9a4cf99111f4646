"""Decides which picture the models need, and checks that the user's options match it, in the plan and on the first
batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from curator_core.errors import UsageError
from curator_core.model.stage import ColumnNeed
from curator_image.decode.picture import Picture

# The metadata key of a column of pixels. It holds the picture of each value, and the properties that were chosen by the
# user, or all of them if a plan knew the models' needs.
MADE_AS = b"curator.picture"


class Derived(NamedTuple):
    """The picture to make, and the plan's remarks about it."""

    picture: Picture
    decisions: list[str]
    warnings: list[str]


def derive(stage: str, default: Picture, chosen: frozenset[str], needs: Sequence[ColumnNeed]) -> Derived:
    """The picture that all ``needs`` agree on, except for the ``size``, ``mode`` or ``resample`` that the user has
    ``chosen``.

    A need of None belongs to a model that is not on this machine yet. If the needs have several sizes, the largest is
    used.
    """
    known = [(need.stage, need.need) for need in needs if isinstance(need.need, Picture)]
    warnings = [
        f"the model of {need.stage} is not on this machine yet, so the plan cannot see which pixels it needs: "
        f"{stage} makes {shown(default)}, and {need.stage} raises an error on the first batch if its model needs "
        "others"
        for need in needs
        if need.need is None and not {"size", "mode"} <= chosen
    ]
    made = default
    if known:
        first, wanted = known[0]
        for reader, other in known[1:]:
            if other.mode != wanted.mode and "mode" not in chosen:
                raise UsageError(
                    f"{first} needs pixels of {shown(wanted)}, and {reader} needs {shown(other)}, but there is only "
                    f"one column of pixels: put an ImageDecode before {reader!r} to make them again, or choose one "
                    "mode for both"
                )
        if "size" not in chosen:
            height, width = (max(getattr(other, side) for _, other in known) for side in ("height", "width"))
            made = replace(made, height=height, width=width)
        for name in ("mode", "resample"):
            if name not in chosen:
                made = replace(made, **{name: getattr(wanted, name)})
    for reader, other in known:
        if wrong := differences(made, other):
            remedy = f"Leave {' and '.join(wrong)} out, and the plan chooses the right values"
            if not chosen.issuperset(wrong):
                remedy = f"Put an ImageDecode before {reader!r} to make them again"
            warnings.append(
                f"{reader} needs pixels of {shown(other)}, but {stage} makes {shown(made)}: its vectors will not be exactly "
                f"those of the model. {remedy}"
            )
    decisions = [f"{stage} makes pixels of {shown(made)}, as {known[0][0]} needs them"] if made != default else []
    return Derived(made, decisions, warnings)


def differences(made: Picture, needed: Picture) -> list[str]:
    """The names among ``size``, ``mode`` and ``resample`` in which a picture differs from the need.

    The size counts although the device resizes a picture of another size: resizing twice differs from resizing once.
    """
    wrong = ["size"] if (made.height, made.width) != (needed.height, needed.width) else []
    return wrong + [name for name in ("mode", "resample") if getattr(made, name) != getattr(needed, name)]


def shown(picture: Picture) -> str:
    """``224 x 224 (crop, bicubic)``: width, height, mode and filter."""
    return f"{picture.width} x {picture.height} ({picture.mode}, {picture.resample})"


def written(picture: Picture, chosen: frozenset[str]) -> bytes:
    """The metadata of a column of pixels."""
    kept = {name: getattr(picture, name) for name in ("height", "width", "mode", "resample")}
    return json.dumps({**kept, "chosen": sorted(chosen)}).encode()


def check_made_as(stage: str, metadata: Mapping[bytes, bytes] | None, needed: Picture | None) -> None:
    """Raise if pixels were not made as a model needs them, unless the user chose them or they have no metadata."""
    kept = (metadata or {}).get(MADE_AS)
    if kept is None or needed is None:
        return
    values = json.loads(kept)
    chosen = values.pop("chosen")
    made = Picture(**values)
    if wrong := [name for name in differences(made, needed) if name not in chosen]:
        given = ", ".join(f"{name}: {needed.height if name == 'size' else getattr(needed, name)}" for name in wrong)
        raise UsageError(
            f"{stage} needs pixels of {shown(needed)}, but the pixels are {shown(made)}: its vectors would not be "
            f"those of the model. Start the run again: the model is on this machine now, so the plan chooses the "
            f"right pixels. Or give the reader {given}"
        )
