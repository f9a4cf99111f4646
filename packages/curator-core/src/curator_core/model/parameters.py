"""Which parameters does a stage's constructor take, and when are two values equal?"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import re
import reprlib
import sys
import types
import typing
from typing import Any

from curator_core.errors import UsageError, nearest

UNSET: Any = object()
_BRIEF = reprlib.Repr(maxlist=4, maxtuple=4, maxset=4, maxfrozenset=4, maxdict=8, maxstring=300, maxother=300)
_NAME = re.compile(r"[^\s/\\\0][^/\\\0]*")


@functools.cache
def own_signature(cls: type) -> inspect.Signature:
    """The parameters of a class as written; their types may be strings."""
    own = cls.__dict__.get("__signature__")
    if isinstance(own, inspect.Signature):
        return own
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return inspect.Signature()
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    return signature.replace(parameters=list(signature.parameters.values())[1:])


# This is cached: resolving the types of a reader's parameters takes 2 ms, and a workflow makes its reader for each
# step.
@functools.cache
def constructor_signature(cls: type) -> inspect.Signature:
    """The parameters of a stage class with their types resolved, as far as they can be."""
    signature = own_signature(cls)
    hints = _field_hints(cls) if dataclasses.is_dataclass(cls) else type_hints(cls.__init__)  # type: ignore[misc]
    return signature.replace(
        parameters=[p.replace(annotation=hints.get(n, p.annotation)) for n, p in signature.parameters.items()]
    )


def bound_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor by name; raise `UsageError` if it does not take them."""
    signature = own_signature(cls)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for key in kwargs:
        if key not in signature.parameters and not takes_any:
            known = [name for name in signature.parameters if not name.startswith("_")]
            raise UsageError(
                f"{cls.__name__} has no parameter {key!r}{nearest(key, known) or '.'} "
                f"It takes: {', '.join(known) or 'no parameters'}"
            )
    try:
        return dict(signature.bind_partial(*args, **kwargs).arguments)
    except TypeError as error:
        raise UsageError(f"{cls.__name__}: {error}") from None


def paths_as_text(owner: Any, *names: str) -> None:
    """Turn parameters whose value is a `pathlib.Path` into text, as in a pipeline file."""
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, os.PathLike):
            text = os.fspath(value)
            object.__setattr__(owner, name, text)
            if name in owner._given:
                owner._given[name] = text


def values_of(owner: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The constructor's parameters and their values, including defaults; ``given`` are the arguments of the call."""
    values: dict[str, Any] = {}
    for key, parameter in own_signature(owner.__class__).parameters.items():
        if key in given:
            values[key] = given[key]
        elif parameter.default is not inspect.Parameter.empty:
            values[key] = owner.__dict__.get(key, parameter.default)
            if is_factory(values[key]):
                values[key] = None
    return values


def call_text(owner: Any, values: dict[str, Any], given: dict[str, Any], *, brief: bool) -> str:
    """The Python call that makes an object: the name of its class and the parameters that are not the defaults.

    ``brief`` shows only the beginning of a long list.
    """
    signature = own_signature(owner.__class__)
    show = _BRIEF.repr if brief else repr
    shown = [
        f"{key}={show(value)}"
        for key, value in values.items()
        if not same_value(value, signature.parameters[key].default)
        and (key in given or not is_factory(signature.parameters[key].default))
    ]
    return f"{type(owner).__name__}({', '.join(shown)})"


def is_factory(default: object) -> bool:
    """Whether a dataclass makes a new value of this parameter for each object."""
    return type(default).__name__ == "_HAS_DEFAULT_FACTORY_CLASS"


def positional_only(signature: inspect.Signature) -> set[str]:
    """The names of the parameters that cannot be given by name."""
    return {n for n, p in signature.parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)}


def type_hints(function: Any) -> dict[str, Any]:
    """The types of a function's parameters, resolved as far as they can be."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # names that exist only for type checkers: use the raw annotations
        return dict(getattr(function, "__annotations__", {}))


def _field_hints(cls: type) -> dict[str, Any]:
    """The types of a dataclass's fields. Each is resolved in the module that defines it, and separately, so that one
    that cannot be resolved (a name for type checkers only) does not affect the others.
    """
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        home = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
        for name, annotation in inspect.get_annotations(base).items():
            holder = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                hints.update(typing.get_type_hints(holder, home, dict(vars(base))))
            except Exception:  # as in type_hints
                hints[name] = annotation
    return hints


def checked_name(name: str) -> str:
    """Return the name of a stage; raise `UsageError` if it is not a valid one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UsageError(
            f"a stage's name is a non-empty string with no slash, because file names contain it; got {name!r}"
        )
    return name


def checked_folder(what: str, value: Any) -> str | None:
    """Return the path of a folder, or None; raise `UsageError` for anything else."""
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise UsageError(f"{what} must be the path of a folder, not {value!r}")
    return value


def checked_seconds(what: str, value: object) -> float:
    """Return a number of seconds above 0, or None; otherwise raise `UsageError`, in which ``what`` names the value as
    the user wrote it.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UsageError(f"{what} must be a number of seconds above 0, or None, not {value!r}")
    return float(value)


def same_value(left: Any, right: Any) -> bool:
    """Whether two values of a parameter are equal; two arrays are equal only if they are the same object."""
    if left is right:
        return True
    try:
        return bool(left == right)
    except (ValueError, TypeError):  # arrays compare element by element
        return False
