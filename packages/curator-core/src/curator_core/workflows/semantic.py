"""Semantic deduplication: of documents whose vectors have nearly the same direction, one stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from curator_core import storage
from curator_core.across.alike import (
    COPIES,
    EDGES,
    HOMES,
    ORDERS,
    PAIRS,
    RULE,
    DecideTies,
    FindPairs,
    Order,
    RouteTies,
    TiePartitions,
    VectorKeys,
    VisitClusters,
)
from curator_core.across.centres import AllVectors, TrainCentres
from curator_core.across.copies import EXACT
from curator_core.across.shuffle import Partitions
from curator_core.errors import UsageError, check_whole
from curator_core.pipeline import Pipeline
from curator_core.workflow import Step, Workflow
from curator_core.workflows.clusters import Clusters
from curator_core.workflows.dedup import Dedup
from curator_core.workflows.ends import Ends
from curator_core.workflows.estimate import Costs
from curator_core.workflows.formats import reader_of, writer_of
from curator_core.workflows.fractions import TopFraction
from curator_core.workflows.groups import Groups
from curator_core.workflows.pairs import RemovedPair, text_of
from curator_core.workflows.pieces import pieces_of

# The folder for files between the steps of a workflow of workflows.
_BETWEEN = "parquet"
_CLUSTER, _DISTANCE = "cluster", "distance"
# A worker compares the vectors of one cluster at a time, so a partition may be larger than one of texts. The number of
# pieces is the square of the number of partitions, and opening each takes a moment.
_PIECES_IN_ONE = 4


@dataclass(kw_only=True)
class SemanticDedup(Dedup):
    """Removes documents whose vector in ``column`` has a cosine of 1 - ``eps`` or more with that of a document that
    stays.

    Vectors are grouped by k-means into ``clusters`` clusters, by default the square root of the number of documents,
    whose centres are found from a ``sample``. A vector is compared with those of its own cluster, and with those of the
    ``visits`` next nearest clusters. Every removed document has a witness, which stays, comes before it in the order of
    preference, and was compared with it; the table of decisions gives the witness and the similarity.

    ``order`` decides first which of two documents is preferred: with ``hard`` the one farther from the centre of its
    cluster, as in SemDeDup, with ``easy`` the nearer one, with ``random`` either, by ``seed``. With ``keep``, and for
    ties, the parameter ``keep`` decides. Documents without a vector, or with a vector of zeros, stay. The result is the
    same on every machine: products so near the limit that an error of BLAS could matter are computed again in a fixed
    order.
    """

    # The vectors are written once, and then once for their home and for each visit.
    disk_of_input = 3.0

    column: str = "embedding"
    keep: Any = ("first",)
    eps: float = 0.05
    clusters: int | None = None
    visits: int = 2
    order: Literal["keep", "hard", "easy", "random"] = "keep"
    seed: int = 0
    sample: int | None = None
    iterations: int = 20

    # The input is read twice and written once. Products take about as long as reading, which depends mostly on the
    # length of the vectors.
    costs = Costs(readings=2, keys=2, disk_of_keys=4, disk_of_text=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        if isinstance(self.eps, bool) or not isinstance(self.eps, int | float) or not 0 <= self.eps < 1:
            raise UsageError(
                f"{owner}.eps must be a number from 0 to below 1, not {self.eps!r}: 1 - eps is the lowest cosine"
            )
        if self.order not in ORDERS:
            raise UsageError(f"{owner}.order must be one of {', '.join(ORDERS)}, not {self.order!r}")
        for name in ("clusters", "sample"):
            check_whole(f"{owner}.{name}", getattr(self, name), optional=True)
        check_whole(f"{owner}.visits", self.visits, least=0)
        check_whole(f"{owner}.iterations", self.iterations)
        check_whole(f"{owner}.seed", self.seed, least=0)
        if self.normalize:
            raise UsageError(f"{owner}.normalize is for text: vectors are always scaled to length one")
        if self.index is not None:
            raise UsageError(
                f"{owner} has no index: give the earlier vectors as input, first in the order of preference"
            )

    def pieces(self) -> int:
        return self.partitions if self.partitions is not None else pieces_of(self._input_bytes(), _PIECES_IN_ONE)

    @classmethod
    def shown_pair(
        cls,
        pair: RemovedPair,
        settings: Mapping[str, Any],  # noqa: ARG003 - the column that was compared has vectors
    ) -> dict[str, Any]:
        """Both documents without their vectors: their ``text``, or else their longest text."""
        if pair.witness is None:
            return {}
        texts = {key: value for key, value in pair.document.items() if isinstance(value, str)}
        if not texts:
            return {}
        column = "text" if "text" in texts else max(sorted(texts), key=lambda key: len(texts[key]))
        found = {
            f"{end}text": text_of(document, column)
            for end, document in (("", pair.document), ("witness_", pair.witness))
        }
        return {**found, "only": [], "witness_only": []}

    def index_parameters(self) -> tuple[str, dict[str, Any]]:
        raise UsageError(f"{type(self).__name__} has no index")

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        keys, centres, homes, pairs, groups, ties, decided = (
            storage.join(work_dir, name) for name in ("keys", "centres", "homes", "pairs", "groups", "ties", "decided")
        )
        documents, count = self._documents(), self.pieces()
        del documents["normalize"]
        pieces: dict[str, Any] = {"keys": keys, "keep": self.keep, "parts": count}
        yield from self._whole(
            Pipeline([self._reader(), VectorKeys(**documents, path=keys, partitions=count)], name="vectors"), work_dir
        )
        vectors = storage.join(keys, EXACT)
        how: dict[str, Any] = {"clusters": self.clusters, "sample": self.sample, "iterations": self.iterations}
        yield Pipeline([AllVectors(path=vectors), TrainCentres(path=centres, **how)], name="centres")
        order: Order = self.order
        visit = VisitClusters(**pieces, path=homes, centres=centres, visits=self.visits, order=order, seed=self.seed)
        yield Pipeline([Partitions(path=vectors), visit], name="clusters")
        compare = FindPairs(**pieces, path=pairs, least=1 - float(self.eps), scope=self.scope, vectors=vectors)
        yield Step(
            Pipeline([Partitions(path=storage.join(homes, HOMES)), compare], name="compare"),
            frees=[storage.join(homes, HOMES), vectors],
        )
        yield Groups(edges=storage.join(pairs, EDGES), path=groups)
        route = RouteTies(**pieces, path=ties, groups=groups)
        named = TiePartitions(path=storage.join(pairs, PAIRS), copies=storage.join(homes, COPIES))
        yield Pipeline([named, route], name="groups-of-pairs")
        yield Pipeline([Partitions(path=ties), DecideTies(**pieces, path=decided)], name="decide")
        settings = {
            "rule": RULE,
            "eps": self.eps,
            "threshold": 1 - float(self.eps),
            "visits": self.visits,
            "order": self.order,
            "seed": self.seed,
            "clusters": self.clusters,
        }
        yield from self._after(work_dir, keys, decided, settings)


@dataclass(kw_only=True)
class SemDeDup(SemanticDedup):
    """`SemanticDedup` as it was published (Abbas et al., 2023): comparisons are within clusters only, and of two
    similar documents the one farther from the centre stays.
    """

    visits: int = 0
    order: Order = "hard"


@dataclass(kw_only=True)
class D4(Ends):
    """Removes semantic duplicates, and then the most typical documents (Tirumala et al., 2023): ``SemDeDup`` with
    ``eps``, then new clusters of the documents that stay, of which the ``fraction`` farthest from their centres is
    kept.

    The output has the additional columns ``cluster`` and ``distance``. For input and output, see `Ends`.
    """

    column: str = "embedding"
    eps: float = 0.05
    fraction: float = 0.75
    clusters: int | None = None
    id_column: str | None = "id"

    def __post_init__(self) -> None:
        self.check_ends()
        if self.path is None and self.writer is None:
            raise UsageError("D4 must write the documents that stay: give a path or a writer")

    def steps(self, work_dir: str) -> Iterator[Pipeline | Workflow | Step]:
        alike, clustered = (storage.join(work_dir, name) for name in ("without-duplicates", "clustered"))
        how: dict[str, Any] = {"column": self.column, "clusters": self.clusters}
        yield SemDeDup(
            reader=self._reader(), writer=writer_of(alike, _BETWEEN), eps=self.eps, id_column=self.id_column, **how
        )
        owner = type(self).__name__
        cluster = Clusters(
            reader=reader_of(alike, _BETWEEN, owner),
            writer=writer_of(clustered, _BETWEEN),
            cluster_column=_CLUSTER,
            distance_column=_DISTANCE,
            **how,
        )
        yield Step(cluster, frees=[alike])
        untypical = TopFraction(
            reader=reader_of(clustered, _BETWEEN, owner),
            writer=self._writer(),
            column=_DISTANCE,
            fraction=self.fraction,
            id_column=self.id_column,
        )
        yield Step(untypical, frees=[clustered], counts=True)
