"""The common part of exact and fuzzy deduplication: input and output, and the steps that follow the decisions."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from curator_core import formatting, storage
from curator_core.across.apply import ApplyDecisions
from curator_core.across.decided import WriteDecisions
from curator_core.across.documents import DocumentParameters
from curator_core.across.index import AGAINST, Against, IndexUse, check_index
from curator_core.across.inputs import Inputs
from curator_core.across.shuffle import Partitions
from curator_core.errors import TooManyErrors, UsageError, check_whole
from curator_core.model.parameters import paths_as_text
from curator_core.model.stage import ProcessingStage
from curator_core.pipeline import Pipeline
from curator_core.running.steps import WORK
from curator_core.workflow import Step
from curator_core.workflows.ends import Ends
from curator_core.workflows.estimate import Costs, Estimate, estimate
from curator_core.workflows.formats import writer_of
from curator_core.workflows.pairs import Pairs, RemovedPair, reader_text, text_of
from curator_core.workflows.pieces import pieces_of

DECISIONS = "decisions"


@dataclass(kw_only=True)
class Dedup(DocumentParameters, Ends):
    """Base of workflows that remove documents in favour of others that stay.

    For input and output, see `Ends`. Without a ``path`` or a ``writer``, only the table of decisions is written, to
    ``decisions/`` of the run directory or to the folder ``decisions``. ``removed`` is a folder for the removed
    documents, with the columns of the table added. ``mode`` is ``remove``, ``annotate`` (all documents stay and get
    columns with the decisions) or ``rehydrate`` (survivors get a weight by the size of their cluster).

    ``partitions`` is the number of pieces for the work between reading and writing. The default is high enough that a
    larger input does not take more memory in a worker. The result does not depend on it.

    ``index`` is a folder with the data about documents of earlier runs that comparing new ones with them requires. The
    earlier documents come first in the order and are never removed. With ``against="both"`` the new documents are
    compared with the index and with one another; with ``index`` only duplicates of documents in the index are removed,
    and duplicates among the new documents stay; with ``self`` they are compared only with one another. At the end the
    documents that stay are added to the index, unless ``index_add`` is false.
    """

    sure_paths: ClassVar[tuple[str, ...]] = ("decisions", "removed", "index")

    decisions: str | None = None
    removed: str | None = None
    mode: Literal["remove", "annotate", "rehydrate"] = "remove"
    partitions: int | None = None
    index: str | None = None
    against: Against = "both"
    index_add: bool = True

    def __post_init__(self) -> None:
        owner = type(self).__name__
        paths_as_text(self, "decisions", "removed", "index")
        self.check_documents()
        check_whole(f"{owner}.partitions", self.partitions, optional=True)
        self.check_ends()
        if self.path is None and self.writer is None and self.decisions is None and self.mode != "remove":
            raise UsageError(f"{owner}.mode {self.mode!r} needs a path or a writer")
        self._check_index()

    # The input is read, hashed and written; the decisions are at most as large as the keys.
    costs: ClassVar[Costs] = Costs(readings=3, keys=1.5, disk_of_keys=2, disk_of_text=0)

    def estimate(self, run_dir: str = "runs/dedup") -> Estimate:
        """The time and disk space of a run, estimated from some of the documents; nothing is written."""
        alone = replace(self, index=None) if self.index is not None else self
        first = next(iter(alone.steps(storage.join(run_dir, WORK))))
        assert isinstance(first, Pipeline)
        reader, keys = first.stages
        return replace(estimate(reader, keys, run_dir, costs=self.costs_of_work()), chances=self.chances())

    def costs_of_work(self) -> Costs:
        """What the steps take, in relation to the input and its keys."""
        return self.costs

    def chances(self) -> dict[str, float]:
        """The probability that two documents are compared, by their similarity; empty if it does not depend on chance."""
        return {}

    @classmethod
    def spans(
        cls,
        text: str,
        witness: str,
        settings: Mapping[str, Any],  # noqa: ARG003 - for workflows that compare parts
    ) -> tuple[Sequence[tuple[int, int, bool]], Sequence[tuple[int, int, bool]]]:
        """The pieces of a removed document and of its witness: start, end, and whether the other document has the
        piece.
        """
        return [(0, len(text), True)], [(0, len(witness), True)]

    @classmethod
    def pairs(cls, folder: str, settings: Mapping[str, Any]) -> Pairs:
        """The documents of a table of decisions, to be read again for `shown_pair`."""
        return Pairs(folder, settings)

    @classmethod
    def shown_pair(cls, pair: RemovedPair, settings: Mapping[str, Any]) -> dict[str, Any]:
        """A removed document and its witness for a page: small pictures of both, or both texts and the pieces that only
        one of them has.
        """
        column = settings.get("column", "text")
        found: dict[str, Any] = {}
        for end, picture in zip(("", "witness_"), pair.thumbnails, strict=True):
            if picture is not None:
                found[f"{end}picture"] = picture
        if found:
            return found
        if not isinstance(pair.document.get(column), str):
            column = next((name for name in ("text", "caption") if isinstance(pair.document.get(name), str)), column)
        if pair.witness is None or not isinstance(pair.document.get(column), str):
            return {}
        texts = text_of(pair.document, column), text_of(pair.witness, column)
        for end, text, pieces in zip(("", "witness_"), texts, cls.spans(*texts, settings), strict=True):
            found[f"{end}text"] = text
            found[f"{end}only"] = [[start, stop] for start, stop, shared in pieces if not shared]
        return found

    def _documents(self) -> dict[str, Any]:
        """The parameters of the stages that read documents."""
        names = ("column", "id_column", "keep", "collection_column", "scope", "normalize")
        return {**{name: getattr(self, name) for name in names}, "bases": list(self.bases or self._input_folders())}

    def pieces(self) -> int:
        """The number of pieces for the work between reading and writing."""
        return self.partitions if self.partitions is not None else pieces_of(self._input_bytes())

    def decisions_folder(self, work_dir: str) -> str:
        return self.decisions or storage.join(storage.parent(work_dir), DECISIONS)

    # The index ----------------------------------------------------------------------------------------------------

    def index_parameters(self) -> tuple[str, dict[str, Any]]:
        """The kind of index, and the parameters that its keys depend on."""
        raise NotImplementedError

    def _check_index(self) -> None:
        owner = type(self).__name__
        if self.against not in AGAINST:
            raise UsageError(f"{owner}.against must be 'self', 'index' or 'both', not {self.against!r}")
        if self.index is None:
            if self.against == "index":
                raise UsageError(f"{owner}.against 'index' needs an index: give the folder of one")
            return
        if not isinstance(self.index, str) or not self.index:
            raise UsageError(f"{owner}.index must be a folder or URL, not {self.index!r}")
        if self.against == "self" and not self.index_add:
            raise UsageError(f"{owner}.index is neither compared with (against='self') nor added to (index_add=False)")
        for name in ("path", "removed", "decisions"):
            folder = getattr(self, name)
            if folder is not None and _within(self.index, folder):
                raise UsageError(
                    f"{owner}.index {self.index!r} is inside {name} {folder!r}, where the run removes files that it "
                    "does not know: give the index a folder of its own"
                )

    def _index(self, settings: dict[str, Any], work_dir: str) -> dict[str, Any] | None:
        """How this run uses the index, as a parameter of stages."""
        if self.index is None:
            return None
        owner = type(self).__name__
        # A plan that is made without a run directory uses a relative name.
        if work_dir == storage.absolute(work_dir) and _within(self.index, storage.parent(work_dir)):
            raise UsageError(
                f"{owner}.index {self.index!r} is inside the run directory: give the index a folder of its own"
            )
        kind, parameters = self.index_parameters()
        parameters = {**parameters, "scope": self.scope}
        check_index(self.index, kind, parameters, owner, required=self.against == "index" or not self.index_add)
        names = ("column", "id_column", "collection_column", "keep", "against")
        decided = {**settings, **{name: getattr(self, name) for name in names}}
        return IndexUse(
            path=self.index,
            kind=kind,
            parameters=parameters,
            against=self.against,
            add=self.index_add,
            settings=decided,
        ).values()

    def _applied(self, work_dir: str, decisions: str) -> ApplyDecisions:
        """The stage that applies the table of decisions to the input."""
        return ApplyDecisions(path=decisions, mode=self.mode)

    # The steps ----------------------------------------------------------------------------------------------------

    def _after(
        self,
        work_dir: str,
        keys: str,
        decided: str,
        settings: dict[str, Any],
        add: Callable[..., ProcessingStage[Any, Any]] | None = None,
    ) -> Generator[Pipeline | Step, Any, None]:
        """The steps from the decisions to the table, and from there to the documents and to the index.

        ``add`` makes the stage that adds to the index, given ``decisions``, the folder of the table.
        """
        folder = self.decisions_folder(work_dir)
        settings = {
            **settings,
            "workflow": type(self).__name__,
            "column": self.column,
            "keep": list(self.keep),
            "reader": reader_text(self._reader()),
        }
        table = WriteDecisions(path=folder, keys=keys, decided_by=settings)
        decided = yield from self._together(decided, self.pieces())
        steps = [Step(Pipeline([Partitions(path=decided), table], name="table"))]
        if self.removed is not None:
            gone = ApplyDecisions(path=folder, mode="removed")
            steps.append(
                Step(Pipeline([self._reader(), gone, writer_of(self.removed, self._format())], name="removed"))
            )
        writer = self._writer()
        if writer is not None:
            applied = self._applied(work_dir, folder)
            steps.append(Step(Pipeline([self._reader(), applied, writer], name="apply"), counts=True))
        if add is not None:
            # This comes last, so that documents in the index are also in the output.
            steps.append(Step(Pipeline([self._reader(), add(decisions=folder)], name="index")))
        # This is freed only at the end, because a resumed run needs it to find the steps.
        steps[-1] = replace(steps[-1], frees=[work_dir])
        inputs = Inputs.read(keys)
        for step in steps:
            outcome = yield step
            if step.counts and step is not steps[-1] and outcome is not None and outcome.rows_quarantined:
                raise TooManyErrors(
                    f"step {step.name!r} has set {formatting.count(outcome.rows_quarantined, 'row')} aside, which are not in the output "
                    "and must not be in the index: later documents would be removed as copies of them. "
                    f"`curate rejects {storage.parent(work_dir)}` shows them. Fix the cause and continue with "
                    "`curate retry`, or begin again with index_add=False"
                )
            # Each of the next steps reads the documents again, and the last has then read them.
            if inputs is not None:
                inputs.require_there()


def _within(inner: str, outer: str) -> bool:
    return f"{storage.absolute(inner).rstrip('/')}/".startswith(f"{storage.absolute(outer).rstrip('/')}/")
