"""Decides which picture models need and whether the user's options match, in the plan and on the first batch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from curator_core.errors import UsageError
from curator_core.model.stage import ColumnNeed
from curator_image.decode.picture import Picture

# In the metadata of a column of pixels: the picture that each value holds, and which of its properties were chosen, by
# the user or (then all of them) by a plan that knew the models' needs.
MADE_AS = b"curator.picture"


class Derived(NamedTuple):
    """The picture to make, and the plan's remarks about it."""

    picture: Picture
    decisions: list[str]
    warnings: list[str]


def derive(stage: str, default: Picture, chosen: frozenset[str], needs: Sequence[ColumnNeed]) -> Derived:
    """The picture that all ``needs`` agree on, but for what the user has ``chosen`` of ``size``, ``mode``, ``resample``.

    A need of None belongs to a model that is not on this machine yet. Of several sizes the largest is made.
    """
    known = [(need.stage, need.need) for need in needs if isinstance(need.need, Picture)]
    warnings = [
        f"the model of {need.stage} is not on this machine yet, so the plan cannot see which pixels it takes: {stage} "
        f"makes {shown(default)}, and {need.stage} refuses the first batch if its model takes others"
        for need in needs
        if need.need is None and not {"size", "mode"} <= chosen
    ]
    made = default
    if known:
        first, wanted = known[0]
        for reader, other in known[1:]:
            if other.mode != wanted.mode and "mode" not in chosen:
                raise UsageError(
                    f"{first} needs pixels of {shown(wanted)}, and {reader} of {shown(other)}, but there is one column of "
                    f"pixels: put an ImageDecode before {reader!r}, which makes them again, or choose a mode for both"
                )
        if "size" not in chosen:
            height, width = (max(getattr(other, side) for _, other in known) for side in ("height", "width"))
            made = replace(made, height=height, width=width)
        for name in ("mode", "resample"):
            if name not in chosen:
                made = replace(made, **{name: getattr(wanted, name)})
    for reader, other in known:
        if wrong := differences(made, other):
            remedy = f"Leave {' and '.join(wrong)} out, and the plan finds the right values"
            if not chosen.issuperset(wrong):
                remedy = f"Put an ImageDecode before {reader!r}, which makes them again"
            warnings.append(
                f"{reader} needs pixels of {shown(other)}, but {stage} makes {shown(made)}: its vectors will not be exactly "
                f"those of the model. {remedy}"
            )
    decisions = [f"{stage} makes pixels of {shown(made)}, as {known[0][0]} needs them"] if made != default else []
    return Derived(made, decisions, warnings)


def differences(made: Picture, needed: Picture) -> list[str]:
    """Those of ``size``, ``mode`` and ``resample`` in which a picture differs from the need.

    A picture of another size is resized on the device, and resizing twice differs from resizing once.
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
    """Refuse pixels that were not made as a model needs them, unless the user chose them or they carry no metadata."""
    kept = (metadata or {}).get(MADE_AS)
    if kept is None or needed is None:
        return
    values = json.loads(kept)
    chosen = values.pop("chosen")
    made = Picture(**values)
    if wrong := [name for name in differences(made, needed) if name not in chosen]:
        given = ", ".join(f"{name}: {needed.height if name == 'size' else getattr(needed, name)}" for name in wrong)
        raise UsageError(
            f"{stage} needs pixels of {shown(needed)}, and these are {shown(made)}: its vectors would not be those of the "
            f"model. Start the run again, since the plan finds the right pixels once the model is on this machine, or "
            "give the "
            f"reader {given}"
        )
