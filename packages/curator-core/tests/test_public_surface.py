"""The names that users import."""

from __future__ import annotations

import inspect

import curator_core


def test_all_names_exist_and_are_listed_in_order() -> None:
    assert list(curator_core.__all__) == sorted(curator_core.__all__)
    for name in curator_core.__all__:
        value = getattr(curator_core, name)
        assert value is getattr(curator_core, name)
        assert name in dir(curator_core)
        if inspect.isclass(value):
            assert value.__name__ == name


def test_every_public_class_and_function_says_what_it_is() -> None:
    undocumented = [
        name for name in curator_core.__all__ if callable(v := getattr(curator_core, name)) and not v.__doc__
    ]
    assert undocumented == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(curator_core, "DocumentBatsch")
