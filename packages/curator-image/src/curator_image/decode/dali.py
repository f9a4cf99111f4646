"""Decodes and resizes JPEGs with NVIDIA DALI, on the GPU or on the CPU."""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from curator_core.errors import MissingDependency
from curator_image.decode.beside import whole_batch
from curator_image.decode.picture import Fit, Picture
from curator_image.decode.pictures import CpuDecoder, Decoded
from curator_image.decode.probe import MAX_PIXELS, MAX_SIDE, BadImage, Header, probe

_FILTERS = {"bilinear": "INTERP_TRIANGULAR", "bicubic": "INTERP_CUBIC", "lanczos": "INTERP_LANCZOS3"}
# How many parts of batches are in DALI at once: one is being read, one decoded, and one resized and handed over.
DEPTH = 3
# The largest part that DALI gets, in images and in full-size pixels (three bytes each); DALI holds DEPTH parts at a
# time.
PART_IMAGES = 256
PART_PIXELS = 128 << 20


def dali_installed() -> bool:
    """Whether DALI is installed; this function does not import it."""
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False


class DaliDecoder:
    """Decodes JPEGs with DALI; `CpuDecoder` decodes other formats and images that DALI rejects.

    `begin` returns at once, and DALI works on its own threads until `Decoding.result` is called.

    One corrupt image makes a DALI pipeline raise, and the pipeline is then useless. So every header is checked first.
    If a part of a batch still fails, its images are decoded one by one on the CPU, which finds the bad ones, and a new
    pipeline is built for the next part.
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
        self._cpu = CpuDecoder(max_pixels=max_pixels, max_side=max_side)
        self._lines: dict[tuple[Picture, ...], _Line] = {}

    @property
    def rebuilt(self) -> int:
        """How many pipelines were discarded because of a corrupt image."""
        return sum(line.rebuilt for line in self._lines.values())

    def __call__(self, images: Sequence[bytes | memoryview], wanted: Sequence[Picture]) -> Decoded:
        return self.begin(images, wanted).result()

    def begin(
        self, images: Sequence[bytes | memoryview], wanted: Sequence[Picture], stay: Sequence[bool] = ()
    ) -> Decoding:
        """Start to make all ``wanted`` pictures of all images. Those marked in ``stay`` are returned as torch tensors
        on DALI's device.
        """
        errors: dict[int, BadImage] = {}
        rows: list[int] = []
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
                rows.append(row)
                headers.append(header)
            else:
                others.append(row)
        stays = tuple(stay) or (False,) * len(wanted)
        line = self._lines.get(tuple(wanted))
        if line is None:
            line = self._lines[tuple(wanted)] = _Line(wanted, self.device_id, self.threads)
        parts = [_Part(rows[a:b], [images[row] for row in rows[a:b]], headers[a:b], stays) for a, b in _cuts(headers)]
        for part in parts:
            line.add(part)
        return Decoding(images, wanted, stays, parts, others, errors, self._cpu, self.device_id)

    def close(self) -> None:
        """End the threads after they have finished the parts that they have begun."""
        for line in self._lines.values():
            line.end()
        self._lines.clear()


@dataclass
class Decoding:
    """A batch that is being decoded."""

    images: Sequence[bytes | memoryview]
    wanted: Sequence[Picture]
    stays: tuple[bool, ...]
    parts: list[_Part]
    others: list[int]
    errors: dict[int, BadImage]
    cpu: CpuDecoder
    device_id: int | None

    def result(self) -> Decoded:
        """The pictures; waits for them."""
        done: list[tuple[_Part, tuple[Any, ...]]] = []
        others = list(self.others)
        for part in self.parts:
            made = part.made.result()
            if made is None:
                others += part.rows
            else:
                done.append((part, made))
        others.sort()
        rest = self.cpu([self.images[row] for row in others], self.wanted) if others else None
        errors = dict(self.errors)
        if rest is not None:
            errors.update((others[row], error) for row, error in rest.errors.items())
        pictures = []
        for number, (picture, stays) in enumerate(zip(self.wanted, self.stays, strict=True)):
            pieces = [(part.rows, made[number]) for part, made in done]
            if rest is not None:
                pieces.append((others, rest.pictures[number]))
            if stays:
                device = "cpu" if self.device_id is None else f"cuda:{self.device_id}"
                pictures.append(whole_batch(pieces, len(self.images), picture.shape, device))
                continue
            array = np.zeros((len(self.images), *picture.shape), np.uint8)
            for rows, values in pieces:
                array[rows] = values
            pictures.append(array)
        return Decoded(tuple(pictures), dict(sorted(errors.items())))


@dataclass
class _Part:
    """Images that DALI gets at once. ``made`` holds their pictures, or None if DALI could not decode all of them."""

    rows: list[int]
    images: list[bytes | memoryview]
    headers: list[Header]
    stays: tuple[bool, ...]
    made: Future[tuple[Any, ...] | None] = field(default_factory=Future)


class _Line:
    """A DALI pipeline and the thread that feeds it parts in order; up to `DEPTH` parts are in the pipeline at once."""

    def __init__(self, wanted: Sequence[Picture], device_id: int | None, threads: int) -> None:
        self.rebuilt = 0
        self._state = _Waiting()
        serve = _Server(self._state, tuple(wanted), device_id, threads, weakref.ref(self))
        thread = threading.Thread(target=serve.run, name="curator-dali", daemon=True)
        thread.start()
        # The finalizer also runs at interpreter exit, because a thread inside DALI would keep the interpreter from
        # ending cleanly.
        self.end = weakref.finalize(self, _end, self._state, thread)

    def add(self, part: _Part) -> None:
        self._state.add(part)


def _end(waiting: _Waiting, thread: threading.Thread) -> None:
    waiting.end()
    if thread is not threading.current_thread():
        thread.join(10.0)


class _Waiting:
    """Parts that wait for the pipeline."""

    def __init__(self) -> None:
        self._parts: deque[_Part] = deque()
        self._changed = threading.Condition()
        self._ended = False

    def add(self, part: _Part) -> None:
        with self._changed:
            self._parts.append(part)
            self._changed.notify()

    def put_back(self, parts: Sequence[_Part]) -> None:
        with self._changed:
            self._parts.extendleft(reversed(parts))

    def take(self, wait: bool) -> _Part | None:
        """The next part, or None if there is none. ``wait`` waits for a part until `end` is called."""
        with self._changed:
            while wait and not self._parts and not self._ended:
                self._changed.wait()
            return self._parts.popleft() if self._parts else None

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()


@dataclass
class _Server:
    """The body of the thread of a `_Line`."""

    waiting: _Waiting
    wanted: tuple[Picture, ...]
    device_id: int | None
    threads: int
    line: weakref.ref[_Line]

    def run(self) -> None:
        pipeline: Any = None
        inside: deque[_Part] = deque()
        while True:
            while len(inside) < DEPTH and (part := self.waiting.take(wait=not inside)) is not None:
                try:
                    if pipeline is None:
                        pipeline = self._build()
                    self._feed(pipeline, part)
                except Exception as error:  # no driver or no memory: not the fault of an image
                    part.made.set_exception(error)
                    pipeline = None
                    self._lost(inside)
                else:
                    inside.append(part)
                del part
            if not inside:
                return
            part = inside.popleft()
            try:
                outputs = pipeline.share_outputs()
            except RuntimeError:
                # An image cannot be decoded. DALI says that the pipeline "is no longer valid": discard it, with
                # everything that shares its state.
                if (line := self.line()) is not None:
                    line.rebuilt += 1
                part.made.set_result(None)
                pipeline = None
                self._lost(inside)
                continue
            try:
                part.made.set_result(tuple(map(_taken, outputs, part.stays)))
            except Exception as error:
                part.made.set_exception(error)
            del outputs, part
            pipeline.release_outputs()

    def _lost(self, inside: deque[_Part]) -> None:
        """A pipeline is discarded: its parts go into the next one."""
        self.waiting.put_back(inside)
        inside.clear()

    def _feed(self, pipeline: Any, part: _Part) -> None:
        self._feed_only(pipeline, part)
        pipeline.schedule_run()

    def _feed_only(self, pipeline: Any, part: _Part) -> None:
        pipeline.feed_input("encoded", [np.frombuffer(data, np.uint8) for data in part.images])
        for number, picture in enumerate(self.wanted):
            fits = [picture.fit(header.width, header.height) for header in part.headers]
            for name, values in _feeds(fits).items():
                pipeline.feed_input(f"{name}{number}", values)

    def _build(self) -> Any:
        """A pipeline that is warmed up and empty."""
        pipeline = self._definition()()
        pipeline.build()
        # The first run of a pipeline takes as many inputs as the pipeline is deep, so the first inputs are small dummy
        # pictures.
        small = _Part([0], [_small()], [probe(_small())], (False,) * len(self.wanted))
        for _ in range(DEPTH - 1):
            self._feed_only(pipeline, small)
        self._feed(pipeline, small)
        for _ in range(DEPTH):
            pipeline.share_outputs()
            pipeline.release_outputs()
        return pipeline

    def _definition(self) -> Any:
        from nvidia import dali
        from nvidia.dali import fn, types

        on_gpu = self.device_id is not None

        @dali.pipeline_def(  # type: ignore[misc,unused-ignore]
            batch_size=PART_IMAGES,
            num_threads=self.threads,
            device_id=self.device_id,
            prefetch_queue_depth=DEPTH,
        )
        def decode() -> Any:
            data = fn.external_source(name="encoded", device="cpu", dtype=types.UINT8)
            # ``mixed`` uses the hardware decoder where the card has one.
            pixels = fn.decoders.image(data, device="mixed" if on_gpu else "cpu", output_type=types.RGB)
            made = []
            for number, picture in enumerate(self.wanted):
                size, start, end = (
                    fn.external_source(name=f"{name}{number}", device="cpu", dtype=types.FLOAT)
                    for name in ("size", "start", "end")
                )
                resized = fn.resize(
                    pixels,
                    size=size,
                    roi_start=start,
                    roi_end=end,
                    interp_type=getattr(types, _FILTERS[picture.resample]),
                    antialias=True,
                    dtype=types.UINT8,
                )
                corner = fn.external_source(name=f"corner{number}", device="cpu", dtype=types.INT32)
                shape = list(picture.shape[:2])
                made.append(fn.slice(resized, start=corner, shape=shape, axes=[0, 1], out_of_bounds_policy="pad"))
            return tuple(made)

        return decode


def _cuts(headers: Sequence[Header]) -> list[tuple[int, int]]:
    """The start and end of each part: a part has at most `PART_IMAGES` images and `PART_PIXELS` pixels, unless one
    image alone has more.
    """
    cuts: list[tuple[int, int]] = []
    start = pixels = 0
    for place, header in enumerate(headers):
        area = header.width * header.height
        if place > start and (place - start == PART_IMAGES or pixels + area > PART_PIXELS):
            cuts.append((start, place))
            start, pixels = place, 0
        pixels += area
    if headers:
        cuts.append((start, len(headers)))
    return cuts


def _feeds(fits: Sequence[Fit]) -> dict[str, list[Any]]:
    """For each upright image: (height, width) after resizing, the corners of the region to resize, and the place of the
    picture in the result.
    """
    return {
        "size": [np.array([fit.height, fit.width], np.float32) for fit in fits],
        "start": [np.array([fit.box[1], fit.box[0]], np.float32) for fit in fits],
        "end": [np.array([fit.box[3], fit.box[2]], np.float32) for fit in fits],
        "corner": [np.array([fit.top, fit.left], np.int32) for fit in fits],
    }


@functools.cache
def _small() -> bytes:
    """A picture of 16 x 16 pixels, used to warm up a pipeline."""
    from PIL import Image

    target = io.BytesIO()
    Image.new("RGB", (16, 16)).save(target, "JPEG")
    return target.getvalue()


def _taken(output: Any, stays: bool) -> Any:
    """DALI's pictures, copied to host memory, or as a torch tensor that keeps DALI's memory alive."""
    if not stays:
        return np.array(output.as_cpu().as_tensor())
    import torch

    return torch.from_dlpack(output.as_tensor())
