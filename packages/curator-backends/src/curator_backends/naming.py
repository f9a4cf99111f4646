"""How groups are called in the engines' dashboards and logs."""

from __future__ import annotations

from curator_core.planning.plan import Group


def group_label(group: Group) -> str:
    """The classes of a group's stages, as operators and actors are named after them."""
    return "+".join(type(planned.stage).__name__ for planned in group.stages)
