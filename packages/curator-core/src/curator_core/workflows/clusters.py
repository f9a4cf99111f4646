"""Which cluster of vectors is each document in, and how typical is it? Optionally only some documents of each cluster
stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from curator_core import storage
from curator_core.across.alike import HOMES, Order, VectorKeys, VisitClusters
from curator_core.across.centres import AllVectors, TrainCentres
from curator_core.across.clustered import AddClusters, RankClusters
from curator_core.across.copies import EXACT
from curator_core.across.shuffle import Partitions
from curator_core.errors import UsageError, check_whole
from curator_core.model.stage import ProcessingStage
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.ends import Ends
from curator_core.workflows.pieces import pieces_of

SUMMARY = "clusters"
_ORDERS: dict[str, Order] = {"typical": "easy", "untypical": "hard", "random": "random"}


@dataclass(kw_only=True)
class Clusters(Ends):
    """Finds clusters of the vectors in ``column``, and adds the cluster of each document and its distance from the centre.

    The distance is 1 - cosine. ``clusters`` is the number of clusters, by default the square root of the number of
    documents. With ``most``, at most that many documents of each cluster stay: the ``typical`` ones, which are nearest
    to the centre, the ``untypical`` ones, or ``random`` ones by ``seed``. Documents without a vector get null and stay.

    For input and output, see `Ends`. The file ``clusters.parquet``, in ``clusters/`` of the run directory or in the
    folder ``summary``, contains the size, the mean distance and the centre of each cluster.
    """

    sure_paths: ClassVar[tuple[str, ...]] = ("summary",)
    disk_of_input = 1.0

    column: str = "embedding"
    clusters: int | None = None
    most: int | None = None
    prefer: Literal["typical", "untypical", "random"] = "typical"
    seed: int = 0
    cluster_column: str = "cluster"
    distance_column: str = "distance"
    sample: int | None = None
    iterations: int = 20
    summary: str | None = None
    partitions: int | None = None

    def __post_init__(self) -> None:
        self.check_ends()
        for name in ("clusters", "most", "sample", "partitions"):
            check_whole(f"Clusters.{name}", getattr(self, name), optional=True)
        check_whole("Clusters.iterations", self.iterations)
        check_whole("Clusters.seed", self.seed, least=0)
        if self.prefer not in _ORDERS:
            raise UsageError(f"Clusters.prefer must be one of {', '.join(_ORDERS)}, not {self.prefer!r}")
        for name in ("column", "cluster_column", "distance_column"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise UsageError(f"Clusters.{name} must be the name of a column, not {value!r}")

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        keys, centres, homes, ranks = (storage.join(work_dir, name) for name in ("keys", "centres", "homes", "ranks"))
        count = self.partitions or pieces_of(self._input_bytes())
        pieces: dict[str, Any] = {"keys": keys, "keep": ("first",), "parts": count}
        make = VectorKeys(column=self.column, keep=("first",), path=keys, partitions=count)
        yield from self._whole(Pipeline([self._reader(), make], name="vectors"), work_dir)
        vectors = storage.join(keys, EXACT)
        how: dict[str, Any] = {"clusters": self.clusters, "sample": self.sample, "iterations": self.iterations}
        yield Pipeline([AllVectors(path=vectors), TrainCentres(path=centres, **how)], name="centres")
        visit = VisitClusters(
            **pieces,
            path=homes,
            centres=centres,
            order=_ORDERS[self.prefer],
            seed=self.seed,
            collapse=False,
            with_vectors=False,
        )
        yield Pipeline([Partitions(path=vectors), visit], name="clusters")
        summary = self.summary or storage.join(storage.parent(work_dir), SUMMARY)
        rank = RankClusters(**pieces, path=ranks, centres=centres, summary=summary)
        yield Pipeline([Partitions(path=storage.join(homes, HOMES)), rank], name="rank")
        columns = {"cluster_column": self.cluster_column, "distance_column": self.distance_column}
        add = AddClusters(path=ranks, keys=keys, most=self.most, **columns)
        writer = self._writer()
        stages: Sequence[ProcessingStage[Any, Any]] = [self._reader(), add, *([writer] if writer is not None else [])]
        yield Step(Pipeline(list(stages), name="apply"), frees=[work_dir], counts=True)
