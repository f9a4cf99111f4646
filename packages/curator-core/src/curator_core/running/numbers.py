"""What are the numbers of a run? The content of ``report.json``: everything that the page shows, as plain values.

They come from the run directory alone, so they are available during a run, after it was killed, and on another machine.
docs/report-json.md describes the format.
"""

from __future__ import annotations

import bisect
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from curator_core import storage
from curator_core.accounts.accounts import Accounts
from curator_core.accounts.rejects import RejectGroup, group_rejects, group_rejects_of_steps
from curator_core.accounts.seen import Seen, data_uri, read_seen
from curator_core.accounts.work_times import read_times
from curator_core.errors import CuratorError, UsageError
from curator_core.formatting import duration, percent, printable
from curator_core.running.alarms import alarms_of
from curator_core.running.attempt import WORKFLOW
from curator_core.running.directory import RunDirectory
from curator_core.running.duplicates import duplicates_of
from curator_core.running.embedding_map import map_of
from curator_core.running.listing import ListedRun, read_run
from curator_core.running.repeats import repeats_of
from curator_core.running.so_far import settled, so_far
from curator_core.running.steps import counting_folder, pipelines_in, workflows_in
from curator_core.running.work import work_of

FORMAT = 1
# The number of examples of rejects of one kind, stage and reason.
_EXAMPLES = 3
# A page shows at most this many characters of one example.
_MESSAGE_CHARACTERS = 2_000
_RAW_BYTES = 1_000
# The small pictures of a page have at most this many characters, so that the page stays below 2 MB.
_PICTURES = 1_200_000
# Workers that wait less than this, in seconds, are usual in a short run, whatever their number.
_LONG_WAIT = 10.0
_VERDICTS = {
    "done": "Every source is complete and every row is accounted for.",
    "quarantined": "Every row is accounted for; some were set aside.",
    "failed": "The run stopped before its end. Complete work is kept: fix the cause and continue with --resume.",
    "running": "The run is still active; these are the numbers of the sources that are complete so far.",
    "interrupted": "The run was interrupted and no process is working on it. Complete work is kept: continue with "
    "--resume.",
}


def numbers_of(run_dir: str, accounts: Accounts | None = None) -> dict[str, Any]:
    """The numbers of the run in a run directory, finished or not. ``accounts`` are the accounts of a pipeline's run, if
    the caller has read them already.
    """
    directory = RunDirectory(run_dir)
    record = directory.read_json("run.json")
    if record is None:
        raise UsageError(f"{run_dir!r} holds no run: there is no run.json")
    record = settled(record, directory.url)
    plan = directory.read_json("plan.json") or {}
    steps = {name: place for name, place in pipelines_in(directory.url).items() if RunDirectory(place).exists()}
    groups = group_rejects_of_steps(steps, _EXAMPLES) if steps else group_rejects(directory.url, _EXAMPLES, accounts)
    step, place = _counting(directory.url, steps)
    seen, problem = _seen(place, accounts)
    # The tables of a workflow within a workflow are in its own folder; the last one is shown.
    folders = [directory.url, *reversed(workflows_in(directory.url))]
    unfinished = {}
    if "summary" not in record:
        unfinished = {name: so_far(place).as_dict() for name, place in (steps or {"": directory.url}).items()}
    command = directory.read_json("command.json") or {}
    return make_numbers(
        record,
        plan,
        groups,
        seen,
        unfinished,
        configuration=str(command.get("file") or ""),
        run_dir=directory.url,
        step=step,
        steps=[_step_so_far(part, directory.url) for part in read_run(run_dir).steps] if unfinished and steps else [],
        duplicates=next(filter(None, map(duplicates_of, folders)), None),
        repeats=next(filter(None, map(repeats_of, folders)), None),
        problems=[problem] if problem else [],
        times=list(read_times(place, int(record.get("attempt") or 1))),
    )


def make_numbers(
    record: Mapping[str, Any],
    plan: Mapping[str, Any],
    rejects: Sequence[RejectGroup] = (),
    seen: Seen | None = None,
    unfinished: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    configuration: str = "",
    run_dir: str = "",
    step: str = "",
    steps: Sequence[Mapping[str, Any]] = (),
    duplicates: Mapping[str, Any] | None = None,
    repeats: Mapping[str, Any] | None = None,
    problems: Sequence[str] = (),
    times: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Like `numbers_of`, from records that have been read. ``step`` is the step of a workflow whose stages are shown."""
    seen = seen or Seen()
    summary = record.get("summary") or {}
    state = str(record.get("state"))
    unfinished = unfinished or {}
    last: Mapping[str, Any] = list(unfinished.values())[-1] if unfinished else {}
    if state == "running" and last:
        state = "running" if any(part["state"] == "running" for part in unfinished.values()) else "interrupted"
    stages = _stages(summary.get("stages") or last.get("stages") or [], seen, record.get("outputs") or {})
    _limit_pictures(stages)
    found: dict[str, Any] = {
        "format": FORMAT,
        "name": str(summary.get("name") or plan.get("name") or "run"),
        "run_dir": run_dir,
        "state": state,
        "verdict": _VERDICTS.get(state, state),
        "closed": _closed(state, summary),
        "shares": summary.get("shares") or {},
        **{name: record.get(name) for name in ("started", "ended", "host", "executor", "attempt", "python")},
        "command": _command(record.get("command")),
        **{name: record.get(name) or {} for name in ("options", "versions", "machine")},
        "models": _models(plan),
        "configuration": {"file": configuration, "steps": list(_planned(plan.get("steps")))},
        "rows": _rows(stages),
        "bytes": {"in": seen.bytes_in, "out": seen.bytes_out, "written": summary.get("bytes", 0)},
        "tokens": _tokens(seen),
        "sources": {
            "total": summary.get("sources", last.get("listed", 0)),
            "complete": last.get("complete", summary.get("sources", 0) - summary.get("sources_failed", 0)),
            "skipped": summary.get("sources_skipped", 0),
            "failed": summary.get("sources_failed", last.get("failed", 0)),
            "rejecting": summary.get("sources_rejecting", 0),
        },
        "files": summary.get("files", 0),
        "problems": [*(summary.get("problems") or []), *problems],
        "warnings": summary.get("warnings") or [],
        "notes": summary.get("notes") or [],
        "stages": stages,
        "collections": list(map(vars, seen.by.get("collection", ()))),
        "by": {column: list(map(vars, found)) for column, found in seen.by.items() if column != "collection"},
        "overlap": seen.overlap,
        "seen": seen.options,
        "rejects": [_reject(group) for group in rejects],
        "duplicates": dict(duplicates or {}),
        "repeats": dict(repeats or {}),
        "embeddings": map_of(seen.map, stages),
        "plan": {"text": str(plan.get("text") or "\n".join(summary.get("decisions") or ())), "groups": _groups(plan)},
        "plans": summary.get("plans") or [],
        "outputs": record.get("outputs") or {},
        "steps": summary.get("steps") or list(steps),
    }
    work = work_of(times, [stage["name"] for stage in stages], None if found["steps"] else found["started"])
    found["time"] = _time(found, summary, last, work, step)
    found["alarms"] = alarms_of(found)
    # Samples are plain values already, and they make up most of the content.
    samples = [stage["samples"] for stage in stages]
    plain: dict[str, Any] = _plain({**found, "stages": [{**stage, "samples": []} for stage in stages]})
    for stage, mine in zip(plain["stages"], samples, strict=True):
        stage["samples"] = mine
    return plain


def _counting(run_dir: str, steps: Mapping[str, str]) -> tuple[str, str]:
    """The step of a workflow whose rows count as those of the run, with its run directory; before it begins, the last
    step that has begun. For a pipeline, no step and the run directory itself.
    """
    place = run_dir
    while (deeper := counting_folder(place)) is not None:
        place = deeper
    found = next((name for name, folder in steps.items() if folder == place), None)
    return (found, place) if found else list(steps.items())[-1] if steps else ("", run_dir)


def _step_so_far(step: ListedRun, above: str) -> dict[str, Any]:
    """A step of a workflow that has not ended, in the form that its summary has."""
    return {
        "name": step.name,
        "state": step.state,
        "folder": storage.relative(step.folder, above),
        "complete_before": False,
        **{key: getattr(step, key) for key in ("sources", "rows_in", "rows_out", "seconds")},
        "steps": [_step_so_far(part, step.folder) for part in step.steps],
    }


def _seen(place: str, accounts: Accounts | None) -> tuple[Seen, str]:
    """What the run, or the step of a workflow that counts, shows of its data. If it cannot be read, only the samples
    are missing on the page.
    """
    try:
        return read_seen(place, accounts), ""
    except (CuratorError, OSError) as error:
        return Seen(), f"the scores and samples of the run cannot be read: {error}"


def _closed(state: str, summary: Mapping[str, Any]) -> bool:
    """Whether the shares of all sources add up."""
    shares = summary.get("shares") or {}
    if state not in ("done", "quarantined"):
        return False
    try:
        return not shares or sum(map(Fraction, shares.values())) == summary.get("sources", 0)
    except ValueError:  # the record was changed by hand
        return False


def _command(recorded: Any) -> str | None:
    """The command line as text; earlier versions recorded a list of words."""
    return shlex.join(map(str, recorded)) if isinstance(recorded, list) else recorded


def _stages(counted: Sequence[Mapping[str, Any]], seen: Seen, outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for place, stage in enumerate(counted):
        entry = seen.stages.get(stage["name"])
        part: dict[str, Any] = {**stage, "says": entry.describe if entry else "", "scores": [], "samples": []}
        part["settings"] = entry.settings if entry else {}
        part["mode"] = entry.mode if entry else "filter"
        part["samples_of"] = entry.of if entry else {"dropped": {}, "kept": 0}
        part["empty"] = entry.empty if entry else []
        if entry is not None:
            # `dataclasses.asdict` would copy every number of every histogram separately.
            part["scores"] = [
                _trimmed({**vars(score), "limits": [limit.as_dict() for limit in score.limits]})
                for score in entry.scores
            ]
            part["samples"] = [
                {**vars(sample), "marked": sample.marked, "picture": data_uri(sample.picture)}
                for sample in entry.samples
            ]
        filters = bool(part["scores"] or stage["dropped"]) or any(one["side"] == "dropped" for one in part["samples"])
        part["kind"] = (
            "writer" if stage["name"] in outputs else "filter" if filters else "reader" if not place else "map"
        )
        if stage["name"] in seen.overlap:
            part["overlap"] = seen.overlap[stage["name"]]
        if entry is not None and entry.alone is not None:
            part |= {"alone": entry.alone, "first": entry.first, "anyway": entry.anyway}
        found.append(part)
    return found


def _limit_pictures(stages: Sequence[Mapping[str, Any]]) -> None:
    """Keep the pictures of as many samples as there is room for: the first of every stage, reason and limit, then the
    second.
    """
    turns: list[tuple[int, int, dict[str, Any]]] = []
    for number, stage in enumerate(stages):
        taken: dict[tuple[Any, ...], int] = {}
        for sample in stage["samples"]:
            of = (sample["side"], sample["reason"], sample["near"], sample["limit"])
            taken[of] = taken.get(of, 0) + 1
            if sample["picture"] is not None:
                turns.append((taken[of], number, sample))
    room = _PICTURES
    shown: set[tuple[int, str, int]] = set()
    for _, number, sample in sorted(turns, key=lambda turn: turn[:2]):
        row = (number, sample["task"], sample["row"])
        if row in shown:
            continue
        room -= len(sample["picture"])
        if room < 0:
            break
        shown.add(row)
    for _, number, sample in turns:
        if (number, sample["task"], sample["row"]) not in shown:
            sample["picture"] = None


def _trimmed(score: dict[str, Any]) -> dict[str, Any]:
    """A score without the empty bins at its ends, unless a limit is near them."""
    edges, counts = score["edges"], score["counts"]
    busy = [place for place, rows in enumerate(counts) if rows]
    wanted = [value for limit in score["limits"] for value in (limit["value"] * 0.5, limit["value"] * 2)]
    low = min([edges[busy[0]]] if busy else [], default=0.0)
    high = max([edges[busy[-1] + 1]] if busy else [], default=0.0)
    low, high = min([low, *wanted]), max([high, *wanted])
    first = max(0, bisect.bisect_right(edges, low) - 1)
    last = min(len(edges) - 1, bisect.bisect_left(edges, high))
    last = max(last, first)
    score["edges"] = edges[first : last + 1]
    for name in ("counts", "kept", "free"):
        score[name] = score[name][first:last]
    return score


def _tokens(seen: Seen) -> dict[str, Any]:
    """The numbers of tokens; zero if they would be estimated from the bytes of pictures."""
    pictures = any(sample.picture for stage in seen.stages.values() for sample in stage.samples)
    if pictures and seen.tokens.startswith("estimated"):
        return {"counted_by": "", "in": 0, "out": 0}
    return {"counted_by": seen.tokens, "in": seen.tokens_in, "out": seen.tokens_out}


def _rows(stages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        "in": max((stage["rows_in"] for stage in stages), default=0),
        "out": stages[-1]["rows_out"] if stages else 0,
        "dropped": sum(sum(stage["dropped"].values()) for stage in stages),
        "rejected": sum(sum(stage["rejected"].values()) for stage in stages),
        "quarantined": sum(stage["quarantined"] for stage in stages),
    }


def _reject(group: RejectGroup) -> dict[str, Any]:
    examples = []
    for example in group.examples:
        raw = example.get("raw")
        examples.append(
            {
                **{name: example.get(name) for name in ("task", "source", "position")},
                "message": str(example.get("message") or "")[:_MESSAGE_CHARACTERS],
                "raw": None if raw is None else raw[:_RAW_BYTES].decode("utf-8", "backslashreplace"),
                "raw_bytes": None if raw is None else len(raw),
            }
        )
    named = {name: getattr(group, name) for name in ("kind", "stage", "reason", "rows")}
    return {**named, "steps": list(group.steps), "examples": examples}


def _models(plan: Mapping[str, Any]) -> list[dict[str, str]]:
    """The parameters that name a model, a revision or the hash of weights, for each stage."""
    found = []
    for step in _planned(plan.get("steps")):
        given = step.get("params") or {}
        named = {
            name: str(value)
            for name, value in given.items()
            if value is not None
            and any(word in name for word in ("model", "weights", "revision", "sha256", "checkpoint"))
        }
        if named:
            found.append({"stage": str(step.get("name")), **named})
    return found


def _planned(steps: Any, within: str = "") -> Iterator[dict[str, Any]]:
    """The stages of a plan; in a workflow, each names its step."""
    for step in steps or ():
        if isinstance(step, Mapping) and "steps" in step:
            yield from _planned(step["steps"], str(step.get("name")))
        elif isinstance(step, Mapping):
            yield {**step, "step": within} if within else dict(step)


def _groups(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The groups of the plan with the names of their stages, parsed from the text of the plan; for a workflow, its
    steps.
    """
    if plan.get("kind") == WORKFLOW:
        return list(_step_groups(plan.get("steps"), ""))
    groups: list[dict[str, Any]] = []
    names = {step.get("name") for step in plan.get("steps") or () if isinstance(step, Mapping)}
    for line in str(plan.get("text") or "").splitlines():
        words = line.split()
        if line.startswith(("group ", "sources")):
            groups.append({"title": " · ".join(filter(None, map(str.strip, line.split("  ")))), "stages": []})
        elif line.startswith("decisions"):
            break
        elif groups and line.startswith("  ") and not line.startswith("   ") and words and words[0] in names:
            groups[-1]["stages"].append(words[0])
    return groups


def _step_groups(steps: Any, above: str) -> Iterator[dict[str, Any]]:
    for number, step in enumerate((step for step in steps or () if isinstance(step, Mapping)), 1):
        parts = [part for part in step.get("steps") or () if isinstance(part, Mapping)]
        nested = [part for part in parts if "steps" in part]
        stages = [str(part.get("name")) for part in parts if "steps" not in part]
        if stages:
            yield {"title": f"step {above}{number} · {step.get('name')}", "stages": stages}
        yield from _step_groups(nested, f"{above}{number}.")


def _time(
    numbers: Mapping[str, Any], summary: Mapping[str, Any], last: Mapping[str, Any], work: dict[str, Any], step: str
) -> dict[str, Any]:
    stages = numbers["stages"]
    whole = sum(stage["seconds"] for stage in stages)
    wall = summary.get("seconds", last.get("seconds"))
    each = [
        {
            "name": stage["name"],
            "seconds": stage["seconds"],
            "share": stage["seconds"] / whole if whole else 0.0,
            "calls": stage.get("calls", 0),
            "rows_a_second": stage["rows_in"] / stage["seconds"] if stage["seconds"] else None,
            **_of_workers(stage, work["by_stage"].get(stage["name"])),
        }
        for stage in stages
    ]
    return {
        "wall": wall,
        "opened_after": summary.get("opened_after"),
        "worked_after": summary.get("worked_after"),
        "of_all_workers": whole,
        "bytes_a_second": numbers["bytes"]["in"] / wall if wall else None,
        "stages": each,
        "timeline": {key: work[key] for key in ("begins", "ends", "of", "workers")},
        "bottleneck": _of_steps(numbers["steps"], wall, step)
        or _bottleneck(each, whole, wall, summary.get("worked_after")),
    }


def _of_workers(stage: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The measurements of the workers that ran a stage. Bytes are those of Arrow tables with all columns, estimated
    from some of the batches.
    """
    if found is None:
        return {"waited": None, "bytes_a_second": None, "memory": None, "gpu_busy": None}
    rows = max(stage["rows_in"], stage["rows_out"])
    known = found["rows"] and stage["seconds"]
    return {
        "waited": found["waited"],
        "bytes_a_second": found["bytes"] / found["rows"] * rows / stage["seconds"] if known else None,
        "memory": found["memory"],
        "gpu_busy": sum(found["gpus"]) / len(found["gpus"]) if found["gpus"] else None,
    }


def _of_steps(steps: Sequence[Mapping[str, Any]], wall: float | None, shown: str) -> str:
    """A sentence about the step of a workflow that takes the most time."""
    if not wall or not any(step["seconds"] for step in steps):
        return ""
    slowest = max(steps, key=lambda step: (step["seconds"] or 0.0, step["name"]))
    return (
        f"Step {printable(slowest['name'])} takes the most time: {duration(slowest['seconds'])} of {duration(wall)} "
        f"({percent(slowest['seconds'], wall)}). The stages below are those of step {printable(shown or steps[-1]['name'])}; "
        "every step has a page of its own."
    )


def _bottleneck(each: Sequence[Mapping[str, Any]], whole: float, wall: float | None, began: float | None) -> str:
    if not whole:
        return ""
    slowest = max(each, key=lambda stage: (stage["seconds"], stage["name"]))
    said = (
        f"{printable(slowest['name'])} takes the most time of all stages: {duration(slowest['seconds'])} of "
        f"{duration(whole)} ({percent(slowest['seconds'], whole)})."
    )
    waited = sum(stage["waited"] or 0.0 for stage in each)
    if waited > max(whole, _LONG_WAIT):
        said += f" The workers waited longer than they worked ({duration(waited)}): use fewer workers or larger inputs."
    if wall and began and began > wall / 2:
        said += (
            f" {percent(began, wall)} of the run passed before the first work was done ({duration(began)}). This "
            "time does not grow with the input."
        )
    return said


# Types that JSON can express directly.
_AS_THEY_ARE = frozenset({str, int, bool, type(None)})


def _plain(value: Any) -> Any:
    """The value in JSON types: no NaN, no infinity, no tuples, every key a string."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    if isinstance(value, (list, tuple)):
        # Most lists are long and contain only numbers.
        kinds = set(map(type, value))
        if kinds <= _AS_THEY_ARE or (kinds == {float} and all(map(math.isfinite, value))):
            return list(value)
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, Mapping):
        return {str(key): part if type(part) in _AS_THEY_ARE else _plain(part) for key, part in value.items()}
    return str(value)
