"""Checks that names of members are safe: a safe name stays inside any folder to which it is joined."""

from __future__ import annotations

import re

MAX_NAME = 4096
_DRIVE = re.compile(r"[A-Za-z]:")
# The form of nearly all names; other names are checked in detail.
_ORDINARY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}(?:[./][A-Za-z0-9_-]{1,99}){1,20}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def unsafe_name(raw: bytes | str) -> str | None:
    """The fault of a member's name, or None if the name is safe: it stays inside any folder to which it is joined."""
    try:
        name = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        if _ORDINARY.fullmatch(name):
            return None
        name.encode("utf-8")
    except UnicodeError:
        return "the name is not UTF-8"
    if not name or name.endswith("/"):
        return "the name is empty"
    if len(name) > MAX_NAME:
        return f"the name has {len(name):,} characters, more than {MAX_NAME:,}"
    if name.startswith("/") or _DRIVE.match(name):
        return "the name is absolute"
    if "\\" in name or _CONTROL.search(name):
        return "the name has a backslash or a control character"
    if ".." in name.split("/"):
        return "the name leaves its folder"
    return None


def clean_name(name: str) -> str:
    """A safe name without the ``./`` and doubled slashes that some writers add."""
    if name.startswith("./") or "//" in name or "/./" in name:
        return "/".join(part for part in name.split("/") if part not in ("", "."))
    return name
