"""Perceptual deduplication: keeps one of the images that show the same picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from curator_core import storage
from curator_core.across.alike import EDGES
from curator_core.across.apply import ApplyDecisions
from curator_core.across.copies import EXACT
from curator_core.across.shuffle import Partitions
from curator_core.errors import UsageError, check_whole
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.dedup import Dedup
from curator_core.workflows.estimate import Costs
from curator_core.workflows.groups import Groups
from curator_image.batch import BYTES, KEY
from curator_image.decode.pictures import DecoderName
from curator_image.dedup.hashes import RADIUS
from curator_image.dedup.keys import HASHES, ApplyToPictures, PictureKeys, SetCopiesAside
from curator_image.dedup.pairs import (
    RULE,
    ComparePictures,
    GroupParts,
    PictureParts,
    RoutePictures,
    Searches,
    SearchPictures,
)
from curator_image.dedup.search import MOST_RADIUS

# Up to this size of the input, few pieces hold the keys, about 5 kB for each picture, and each piece takes about 10 ms in each step.
_SMALL_BYTES = 128 << 20
_FEW_PIECES = 4


@dataclass(kw_only=True)
class ImageDedup(Dedup):
    """Removes images that show the same picture as one that stays: resized, recompressed, brightened, with a border or
    slightly cropped, and with ``mirror`` also mirrored.

    Images are compared if hashes of their lowest frequencies differ in at most ``radius`` bits; with ``crops``, windows
    of a picture are also hashed, which a cropped copy may resemble. An image is removed only for a witness that stays
    and comes before it in the order of preference; the small grey pictures of both must have a correlation of
    ``threshold`` or more. The table of decisions names the witness and the correlation. Copies of the same bytes are
    removed first. Images that cannot be decoded, and those with hardly any contrast, are removed only as exact copies.

    The workflow needs no model and no GPU. By default, ``keep`` prefers the larger file, and among equally large files
    the first.
    """

    column: str = BYTES
    id_column: str | None = KEY
    crops: bool = True
    mirror: bool = False
    radius: int = RADIUS
    threshold: float = 0.9
    decoder: DecoderName = "auto"

    costs = Costs(readings=2, keys=2, disk_of_keys=0.2, disk_of_text=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        check_whole(f"{owner}.radius", self.radius, least=0)
        if self.radius > MOST_RADIUS:
            raise UsageError(
                f"{owner}.radius must be at most {MOST_RADIUS}, not {self.radius!r}: the search finds all pairs only "
                "up to that radius"
            )
        if (
            isinstance(self.threshold, bool)
            or not isinstance(self.threshold, int | float)
            or not 0 < self.threshold <= 1
        ):
            raise UsageError(f"{owner}.threshold must be a number above 0 and at most 1, not {self.threshold!r}")
        if self.normalize:
            raise UsageError(f"{owner}.normalize is for text")
        if self.index is not None:
            raise UsageError(
                f"{owner} keeps no index: add the earlier images to the input, and put them first in the order "
                "of preference"
            )

    def pieces(self) -> int:
        if self.partitions is None and self._input_bytes() <= _SMALL_BYTES:
            return _FEW_PIECES
        return super().pieces()

    def _applied(self, work_dir: str, decisions: str) -> ApplyDecisions:
        keys = storage.join(work_dir, "keys")
        return ApplyToPictures(path=decisions, mode=self.mode, keys=keys, column=self.column)

    def index_parameters(self) -> tuple[str, dict[str, Any]]:
        raise UsageError(f"{type(self).__name__} keeps no index")

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        keys, aside, pairs, groups, routed, decided = (
            storage.join(work_dir, name) for name in ("keys", "aside", "pairs", "groups", "routed", "decided")
        )
        documents, count = self._documents(), self.pieces()
        pieces: dict[str, Any] = {"keys": keys, "keep": self.keep, "parts": count}
        how: dict[str, Any] = {"crops": self.crops, "mirror": self.mirror}
        make = PictureKeys(**documents, **how, path=keys, partitions=count, decoder=self.decoder)
        yield from self._whole(Pipeline([self._reader(), make], name="pictures"), work_dir)
        exact = storage.join(keys, EXACT)
        yield Step(
            Pipeline([Partitions(path=exact), SetCopiesAside(**pieces, path=aside)], name="copies"), frees=[exact]
        )
        named = Searches(path=storage.join(aside, HASHES), **how)
        search = SearchPictures(**pieces, path=pairs, radius=self.radius)
        yield Pipeline([named, search], name="search")
        yield Groups(edges=storage.join(pairs, EDGES), path=groups)
        route = RoutePictures(**pieces, path=routed, groups=groups)
        yield Pipeline([PictureParts(pairs=pairs, aside=aside), route], name="groups-of-pictures")
        compare = ComparePictures(**pieces, path=decided, least=float(self.threshold), scope=self.scope)
        yield Pipeline([GroupParts(path=routed), compare], name="compare")
        settings = {"rule": RULE, "threshold": self.threshold, "radius": self.radius, **how}
        yield from self._after(work_dir, keys, decided, settings)
