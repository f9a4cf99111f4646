"""What does one worker of a stage need? CPUs, and part of a GPU or whole ones."""

from __future__ import annotations

from dataclasses import dataclass

from curator_core.errors import PlanError, UsageError


@dataclass(frozen=True, slots=True)
class Resources:
    """The needs of one worker. ``gpu_memory_gb`` requests part of one GPU, ``gpus`` whole ones."""

    cpus: float = 1.0
    gpu_memory_gb: float = 0.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for field in ("cpus", "gpu_memory_gb", "gpus"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UsageError(f"Resources.{field} must be a number, not {value!r}")
            if not 0 <= value < float("inf"):
                raise UsageError(f"Resources.{field} must be zero or more, not {value!r}")
        if self.gpu_memory_gb and self.gpus:
            raise UsageError(
                f"Resources asks for both gpu_memory_gb={self.gpu_memory_gb!r} and gpus={self.gpus!r}: "
                "give gpu_memory_gb for part of one GPU, or gpus for whole ones"
            )

    @property
    def requires_gpu(self) -> bool:
        return self.gpus > 0 or self.gpu_memory_gb > 0

    def gpu_share(self, gpu_memory_gb: float, card: str = "a GPU") -> float:
        """The share of GPUs to request from a scheduler, if ``card`` has ``gpu_memory_gb``.

        It is rounded up to a thousandth, so that a small need on a large card never becomes zero.
        """
        if self.gpus:
            return self.gpus
        if not self.gpu_memory_gb:
            return 0.0
        if self.gpu_memory_gb > gpu_memory_gb:
            raise PlanError(
                f"a worker asks for {self.gpu_memory_gb:g} GB of one GPU, but {card} has "
                f"{gpu_memory_gb:g} GB: lower gpu_memory_gb, or ask for whole GPUs with gpus=…"
            )
        thousandths = -(-self.gpu_memory_gb * 1000 // gpu_memory_gb)
        return min(1000, max(1, int(thousandths))) / 1000  # the ceiling of a float product may be one too high
