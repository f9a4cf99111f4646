"""The rule behind ``compile``: at once, never, or once a GPU has computed for as long as compiling takes."""

from __future__ import annotations

import pytest

from curator_core import UsageError
from curator_core.model.compiling import COMPILE_AFTER_S, MaybeCompiled, check_compile, compile_decisions


@pytest.mark.parametrize(
    ("option", "on_gpu", "first", "later"),
    [
        ("always", False, "compiled", "compiled"),
        ("always", True, "compiled", "compiled"),
        ("auto", True, "plain", "compiled"),
        ("auto", False, "plain", "plain"),
        ("never", True, "plain", "plain"),
    ],
)
def test_a_model_is_compiled_if_its_option_says_so(option: str, on_gpu: bool, first: str, later: str) -> None:
    now = [100.0]
    model = MaybeCompiled("plain", option, on_gpu=on_gpu, compile=lambda _: "compiled", clock=lambda: now[0])
    assert not model.in_time()
    now[0] += COMPILE_AFTER_S
    assert not model.in_time()
    assert model.current == first
    now[0] += 1
    assert model.in_time() is (first != later)
    assert not model.in_time()  # once
    assert model.current == later


def test_the_plan_says_whether_the_model_is_compiled() -> None:
    assert compile_decisions("E", "never", True) == compile_decisions("E", "auto", False) == []
    (auto,), (always,) = compile_decisions("E", "auto", True), compile_decisions("E", "always", False)
    assert auto == (
        "E compiles its model once a worker has computed for 30 s, about the time that compiling takes (compile: auto)"
    )
    assert always == "E compiles its model when a worker starts (compile: always)"
    with pytest.raises(UsageError, match=r"E.compile must be one of auto, always, never, not 'sometimes'"):
        check_compile("E.compile", "sometimes")
