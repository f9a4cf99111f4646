"""NVIDIA DALI: decode and resize a batch of JPEGs in one pipeline, on the GPU or on the CPU."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from curator_core.errors import MissingDependency
from curator_image.decode.picture import Fit, Picture
from curator_image.decode.pictures import CpuDecoder, Decoded, Pixels
from curator_image.decode.probe import MAX_PIXELS, MAX_SIDE, BadImage, Header, probe

_FILTERS = {"bilinear": "INTERP_TRIANGULAR", "bicubic": "INTERP_CUBIC", "lanczos": "INTERP_LANCZOS3"}


def dali_installed() -> bool:
    """Whether DALI can be imported; it is not imported to find out."""
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False


class DaliDecoder:
    """Decodes JPEGs with DALI, and everything else, and what DALI will not take, with `CpuDecoder`.

    One corrupt image makes a DALI pipeline raise, and useless from then on. So every header is checked first, and
    when a batch fails all the same, its images are decoded one by one on the CPU, which finds the bad ones, and a
    new pipeline is built for the next batch.
    """

    def __init__(
        self,
        device_id: int | None = None,
        *,
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
        max_side: int = MAX_SIDE,
    ) -> None:
        """``device_id`` is the GPU; None decodes on the CPU, with no GPU or driver needed."""
        if not dali_installed():
            raise MissingDependency(
                "decoder='dali' needs NVIDIA DALI: pip install \"curator-image[dali]\", or use decoder='auto'"
            )
        self.device_id = device_id
        self.threads = threads or max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
        self.rebuilt = 0
        self._cpu = CpuDecoder(max_pixels=max_pixels, max_side=max_side)
        self._pipelines: dict[tuple[int, tuple[Picture, ...]], Any] = {}

    def __call__(self, images: Sequence[bytes | memoryview], wanted: Sequence[Picture]) -> Decoded:
        arrays = tuple(np.zeros((len(images), *picture.shape), np.uint8) for picture in wanted)
        errors: dict[int, BadImage] = {}
        ours: list[int] = []
        headers: list[Header] = []
        others: list[int] = []
        for row, data in enumerate(images):
            try:
                header = probe(bytes(data), max_pixels=self._cpu.max_pixels, max_side=self._cpu.max_side)
            except BadImage as error:
                errors[row] = error
                continue
            plain = header.format == "jpeg" and header.channels in (1, 3)
            if plain and all(picture.resample in _FILTERS for picture in wanted):
                ours.append(row)
                headers.append(header)
            else:
                others.append(row)
        if ours:
            done = self._batch([images[row] for row in ours], headers, wanted)
            if done is None:
                others = sorted(others + ours)
            else:
                for array, made in zip(arrays, done, strict=True):
                    array[ours] = made
        if others:
            rest = self._cpu([images[row] for row in others], wanted)
            for array, made in zip(arrays, rest.pictures, strict=True):
                array[others] = made
            errors.update((others[row], error) for row, error in rest.errors.items())
        return Decoded(arrays, dict(sorted(errors.items())))

    def _batch(
        self, images: Sequence[bytes | memoryview], headers: Sequence[Header], wanted: Sequence[Picture]
    ) -> list[Pixels] | None:
        # Batches of a pipeline may be smaller than what it was built for, so sizes are rounded up to share pipelines.
        size = 1 << max(3, (len(images) - 1).bit_length())
        key = (size, tuple(wanted))
        try:
            pipeline = self._pipelines.get(key)
            if pipeline is None:
                pipeline = self._pipelines[key] = self._build(size, wanted)
            pipeline.feed_input("encoded", [np.frombuffer(data, np.uint8) for data in images])
            for number, picture in enumerate(wanted):
                fits = [picture.fit(header.width, header.height) for header in headers]
                for name, values in _feeds(fits).items():
                    pipeline.feed_input(f"{name}{number}", values)
            outputs = pipeline.run()
        except RuntimeError:
            # Whatever it was, the pipeline "is no longer valid": forget it, and all that share its state.
            self._pipelines.pop(key, None)
            self.rebuilt += 1
            return None
        made = []
        for picture, output in zip(wanted, outputs, strict=True):
            tensors = output if self.device_id is None else output.as_cpu()
            tiles = np.zeros((len(images), *picture.shape), np.uint8)
            for row, header in enumerate(headers):
                picture.fit(header.width, header.height).place(np.asarray(tensors.at(row)), tiles[row])
            made.append(tiles)
        return made

    def _build(self, size: int, wanted: Sequence[Picture]) -> Any:
        from nvidia import dali
        from nvidia.dali import fn, types

        on_gpu = self.device_id is not None

        @dali.pipeline_def(  # type: ignore[misc,unused-ignore]
            batch_size=size,
            num_threads=self.threads,
            device_id=self.device_id,
            prefetch_queue_depth=1,
            exec_async=False,
            exec_pipelined=False,
        )
        def decode() -> Any:
            data = fn.external_source(name="encoded", device="cpu", dtype=types.UINT8)
            pixels = fn.decoders.image(data, device="mixed" if on_gpu else "cpu", output_type=types.RGB)
            made = []
            for number, picture in enumerate(wanted):
                feeds = {
                    name: fn.external_source(name=f"{name}{number}", device="cpu", dtype=types.FLOAT)
                    for name in ("size", "start", "end")
                }
                made.append(
                    fn.resize(
                        pixels,
                        size=feeds["size"],
                        roi_start=feeds["start"],
                        roi_end=feeds["end"],
                        interp_type=getattr(types, _FILTERS[picture.resample]),
                        antialias=True,
                        dtype=types.UINT8,
                    )
                )
            return tuple(made)

        pipeline = decode()
        pipeline.build()
        return pipeline


def _feeds(fits: Sequence[Fit]) -> dict[str, list[Any]]:
    """Per image, (height, width) of the result and the corners of what is resized, upright."""
    return {
        "size": [np.array([fit.height, fit.width], np.float32) for fit in fits],
        "start": [np.array([fit.box[1], fit.box[0]], np.float32) for fit in fits],
        "end": [np.array([fit.box[3], fit.box[2]], np.float32) for fit in fits],
    }
