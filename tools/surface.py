"""Writes the public surface of each package, on which users may rely: every public name with its signature.

The names of a package are those in its ``__all__`` and in that of its public subpackages; everything else that can be
imported is private. ``packages/NAME/surface.txt`` lists them, so that reviews show changes to them. ``--check`` shows
differences between the file and the code.
"""

from __future__ import annotations

import argparse
import difflib
import enum
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workspace import ROOT, Package, packages

RENEW = "make generate"


def surface(package: str) -> str:
    """The public names of ``package`` and of its public subpackages, in order, with the signature of each."""
    lines: list[str] = []
    homes: dict[int, str] = {}
    for module in public_packages(package):
        lines += ["", module] if lines else [module]
        loaded = importlib.import_module(module)
        for name in sorted(loaded.__all__):
            value = getattr(loaded, name)
            full = f"{module}.{name}"
            # A second name for the same object needs no second description. Equal constants are not the same object.
            home = homes.setdefault(id(value), full) if callable(value) else full
            shown = described(name, value) if home == full else [f"{name} = {home}"]
            lines += [f"  {line}" for line in shown]
    return "\n".join(lines) + "\n"


def public_packages(package: str) -> Iterator[str]:
    """``package`` and its subpackages that have ``__all__``, except those whose name begins with an underscore."""
    loaded = importlib.import_module(package)
    if hasattr(loaded, "__all__"):
        yield package
    for found in pkgutil.iter_modules(loaded.__path__, f"{package}."):
        if found.ispkg and not found.name.rpartition(".")[2].startswith("_"):
            yield from public_packages(found.name)


def described(name: str, value: Any) -> list[str]:
    """The lines about a public object: its signature, and for a class its members beyond those of its public bases."""
    if isinstance(value, type):
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        kind = f" is {bases}" if bases else ""
        if issubclass(value, enum.Enum):
            return [f"{name}{kind}", *(f"  {member.name} = {member.value!r}" for member in value)]
        return [f"{name}{_constructor(value)}{kind}", *(f"  {line}" for line in _members(value))]
    if callable(value):
        return [name + _signature(value)]
    return [f"{name}: {type(value).__name__} = {_value(value)}"]


def differences(package: Package) -> str:
    """The differences between ``surface.txt`` of a package and its code; empty if there are none."""
    path = surface_file(package)
    recorded = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = difflib.unified_diff(
        recorded.splitlines(keepends=True), surface(package.module).splitlines(keepends=True), "recorded", "code", n=1
    )
    return "".join(lines)


def surface_file(package: Package) -> Path:
    """The file in which the surface of a package is recorded."""
    return package.folder / "surface.txt"


def main() -> int:
    """Write the files, or with ``--check`` show differences; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    check = parser.parse_args().check
    changed = 0
    for package in packages():
        found = differences(package)
        changed += bool(found)
        if found and check:
            name = surface_file(package).relative_to(ROOT)
            print(f"error: {name} is out of date: `{RENEW}` renews it\n{found}", file=sys.stderr)
        elif found:
            surface_file(package).write_text(surface(package.module), encoding="utf-8")
    if not changed:
        print("the public surface of each package is as recorded")
    return 1 if check and changed else 0


def _members(cls: type) -> Iterator[str]:
    """Public methods, properties and attributes of ``cls`` that its public bases do not have in the same form."""
    # Python's own classes (int, str, Exception, Enum) are documented elsewhere.
    ours = [base for base in cls.__mro__ if base.__module__.startswith("curator_")]
    parameters = set(_parameters_of(cls))
    for name in sorted({name for base in ours for name in (*vars(base), *inspect.get_annotations(base))}):
        if name.startswith("_"):
            continue
        forms = [form for base in ours if (form := _member(base, name)) is not None]
        bases = [form for base in ours[1:] if _is_public(base) and (form := _member(base, name)) is not None]
        # An override with a narrower return type is used in the same way.
        if (
            name not in parameters
            and forms
            and forms[0].split(" -> ")[0] not in [one.split(" -> ")[0] for one in bases]
        ):
            yield forms[0]


def _member(cls: type, name: str) -> str | None:
    """The description of an attribute that ``cls`` itself defines; None if it does not."""
    annotation = inspect.get_annotations(cls).get(name)
    if name not in vars(cls):
        return None if annotation is None else f"{name}: {_type(annotation)}"
    value = vars(cls)[name]
    if isinstance(value, property):
        return f"{name}: {_type(inspect.signature(value.fget).return_annotation) if value.fget else '…'} (property)"
    if isinstance(value, staticmethod | classmethod):
        return f"{name}{_signature(value.__func__)} ({type(value).__name__})"
    if inspect.isfunction(value):
        return name + _signature(value)
    # Slots belong to fields, whose annotations describe them.
    if inspect.ismemberdescriptor(value):
        return None if annotation is None else f"{name}: {_type(annotation)}"
    return None if annotation is None else f"{name}: {_type(annotation)} = {_value(value)}"


def _is_public(cls: type) -> bool:
    root = importlib.import_module(cls.__module__.partition(".")[0])
    return cls.__name__ in getattr(root, "__all__", ())


def _constructor(cls: type) -> str:
    parameters = _parameters_of(cls)
    return f"({_joined(list(parameters.values()))})"


def _parameters_of(cls: type) -> dict[str, inspect.Parameter]:
    """The parameters of the constructor: those of ``__init__`` or ``__new__``, whichever is nearer, as for type
    checkers.
    """
    given = vars(cls).get("__signature__")
    if isinstance(given, inspect.Signature):
        return dict(given.parameters)
    for base in cls.__mro__:
        for special in ("__init__", "__new__"):
            if special in vars(base) and inspect.isfunction(function := getattr(base, special)):
                return dict(list(inspect.signature(function).parameters.items())[1:])
    return {}


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    result = signature.return_annotation
    arrow = "" if result is signature.empty else f" -> {_type(result)}"
    return f"({_joined([p for p in signature.parameters.values() if p.name != 'self'])}){arrow}"


def _joined(parameters: list[inspect.Parameter]) -> str:
    """Parameters in the form of a call; those with an underscore are private and left out."""
    shown: list[str] = []
    keyword_only = False
    for one in parameters:
        if one.name.startswith("_"):
            continue
        star = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        if one.kind is one.KEYWORD_ONLY and not keyword_only:
            shown.append("*")
        keyword_only = keyword_only or one.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL)
        typed = "" if one.annotation is one.empty else f": {_type(one.annotation)}"
        default = "" if one.default is one.empty else f" = {_value(one.default)}"
        shown.append(f"{star}{one.name}{typed}{default}")
    return ", ".join(shown)


def _type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _value(value: Any) -> str:
    """A default as it is written in code, or three dots if it has no readable form."""
    if callable(value) and hasattr(value, "__qualname__"):
        return str(value.__qualname__)
    if isinstance(value, set | frozenset):  # always in the same order
        return f"{type(value).__name__}({{{', '.join(sorted(map(_value, value)))}}})"
    shown = repr(value)
    return "…" if shown.startswith("<") or " at 0x" in shown else shown


if __name__ == "__main__":
    sys.exit(main())
