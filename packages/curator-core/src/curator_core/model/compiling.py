"""When is a model compiled? The rule for the option ``compile`` of all stages that have it.

Compiling takes about half a minute, so it pays off if a worker computes for longer than that. The number of rows is
unknown in advance: ``auto`` compiles after that much work, which costs at most twice as much as the best choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from curator_core.errors import UsageError

COMPILE = ("auto", "always", "never")
# About the time that compiling a model takes: with `compile: auto`, a worker compiles once it has computed for this
# long on a GPU.
COMPILE_AFTER_S = 30.0


def check_compile(what: str, value: object) -> None:
    """Raise `UsageError` unless ``value`` is one of `COMPILE`."""
    if value not in COMPILE:
        raise UsageError(f"{what} must be one of {', '.join(COMPILE)}, not {value!r}")


def compile_decisions(stage: str, option: str, on_gpu: bool) -> Sequence[str]:
    """The plan's sentences about the option of a stage; none if the model is not compiled."""
    if option == "always":
        return [f"{stage} compiles its model when a worker starts (compile: always)"]
    if option == "auto" and on_gpu:
        return [
            f"{stage} compiles its model once a worker has computed for {COMPILE_AFTER_S:g} s, about the time that "
            "compiling takes (compile: auto)"
        ]
    return []


class MaybeCompiled:
    """A model that is compiled when its stage's option says so. Call `current`."""

    def __init__(
        self,
        model: Any,
        option: str,
        *,
        on_gpu: bool,
        compile: Callable[[Any], Any],  # noqa: A002 - the name of the option
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model = model
        self.compiled: Any = None
        self._option = option
        self._on_gpu = on_gpu
        self._compile = compile
        self._clock = clock
        self._began: float | None = None
        if option == "always":
            self.compiled = compile(model)

    def in_time(self) -> bool:
        """Compile now if it is due; return whether this call compiled."""
        if self.compiled is not None or self._option != "auto" or not self._on_gpu:
            return False
        if self._began is None:
            self._began = self._clock()
        if self._clock() - self._began <= COMPILE_AFTER_S:
            return False
        self.compiled = self._compile(self.model)
        return True

    @property
    def current(self) -> Any:
        """The compiled model if there is one, otherwise the model itself."""
        return self.model if self.compiled is None else self.compiled
