"""``curate doctor``."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import click

from curator_core.cli import DONE, FAILED
from curator_core.formatting import count

_PACKAGES = ("curator-core", "curator-text", "curator-image", "curator-backends")
_STORES = {"s3fs": "s3://", "gcsfs": "gs://", "adlfs": "az://", "huggingface-hub": "hf://"}
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


@click.command("doctor", short_help="Show what is installed, what this machine has, and what is missing.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def doctor_command(as_json: bool) -> int:
    """Show what is installed, what this machine has, and which commands install what is missing.

    The exit code is 1 if something is broken, and 0 if it is merely not installed.
    """
    facts = examine()
    if as_json:
        click.echo(json.dumps(facts, indent=1))
    else:
        _show(facts)
    return FAILED if facts["broken"] else DONE


def examine() -> dict[str, Any]:
    """The facts about this machine and this installation."""
    from curator_core.model.machine import system_name, this_machine  # only this command needs these imports
    from curator_core.registry import EXECUTORS, STAGES, WORKFLOWS, entries

    machine = this_machine()
    broken: list[str] = []
    registered = {}
    for group in (STAGES, EXECUTORS, WORKFLOWS):
        found = entries(group)
        registered[group] = len(found)
        for name, owners in found.items():
            if len(owners) > 1:
                broken.append(f"{name!r} is registered by {' and '.join(owner.owner for owner in owners)}")
    packages = {name: _version(name) for name in _PACKAGES}
    for name, version in packages.items():
        broken += _misfits(name) if version else []
    here = os.getcwd()  # noqa: PTH109 - text for the answer
    return {
        "python": platform.python_version(),
        "system": system_name(),
        "executable": sys.executable,
        "machine": {
            "cpus": machine.cpus,
            "memory_gb": machine.memory_gb,
            "gpus": machine.gpus,
            "gpu_memory_gb": machine.gpu_memory_gb,
        },
        "folder": {
            "path": here,
            "free_gb": round(shutil.disk_usage(here).free / 1e9, 1),
            "writable": os.access(here, os.W_OK),
        },
        "packages": packages,
        "extras": {name: _extras(name) for name, version in packages.items() if version},
        "stores": {name: {"for": url, "version": _version(name)} for name, url in _STORES.items()},
        "registered": registered,
        "bytecode": _bytecode(),
        "broken": broken,
    }


def _bytecode() -> str:
    """What to do if packages were installed without bytecode; empty if they have it."""
    import pyarrow.parquet  # noqa: F401 - every run and worker loads it, and it loads most of the modules that a run needs

    from curator_core.model.bytecode import bytecode_hint

    return bytecode_hint()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _extras(name: str) -> dict[str, list[str]]:
    """For each extra of a package, its packages that are not installed."""
    wanted: dict[str, list[str]] = {extra: [] for extra in metadata.metadata(name).get_all("Provides-Extra") or []}
    for requirement in metadata.requires(name) or []:
        for extra in _EXTRA.findall(requirement):
            wanted.setdefault(extra, []).append(requirement)
    return {extra: sorted(set(_missing(name, extra, wanted, frozenset()))) for extra in wanted}


def _missing(name: str, extra: str, wanted: dict[str, list[str]], above: frozenset[str]) -> Iterator[str]:
    for requirement in wanted.get(extra, ()):
        package = _REQUIREMENT.match(requirement)
        if package is None:
            continue
        if package[1] != name:
            if not _version(package[1]):
                yield package[1]
            continue
        # An extra that consists of others: all = ["curator-text[models,…]"].
        for other in (package[2] or "").split(","):
            if other.strip() and other.strip() not in above:
                yield from _missing(name, other.strip(), wanted, above | {extra})


def _misfits(name: str) -> list[str]:
    """Sibling packages whose versions do not match. An installer prevents this; a mixed checkout does not."""
    wrong = []
    for requirement in metadata.requires(name) or []:
        match = re.match(r"(curator-[a-z]+)\s*\(?([<>=!~0-9.,\s]*)", requirement)
        if not match or "extra" in requirement:
            continue
        version = _version(match[1])
        if version is None:
            wrong.append(f"{name} needs {match[1]}, which is not installed: pip install {match[1]}")
        elif not _fits(version, match[2]):
            wrong.append(
                f"{name} needs {match[1]}{match[2].strip()}, but {version} is installed: pip install -U {name}"
            )
    return wrong


def _fits(version: str, wanted: str) -> bool:
    """Whether a plain version is within plain bounds; siblings use no others."""

    def numbers(text: str) -> list[int]:
        values = [int(part) for part in re.findall(r"\d+", text)[:3]]
        return values + [0] * (3 - len(values))

    mine = numbers(version)
    for bound in filter(None, (part.strip() for part in wanted.split(","))):
        if bound.startswith(">=") and mine < numbers(bound):
            return False
        if bound.startswith("<") and not bound.startswith("<=") and mine >= numbers(bound):
            return False
    return True


def _show(facts: dict[str, Any]) -> None:
    machine, folder = facts["machine"], facts["folder"]
    gpu = f"{machine['gpus']:g} GPUs" if machine["gpus"] else "no GPU"
    if machine["gpu_memory_gb"]:
        gpu += f" (the largest has {machine['gpu_memory_gb']:g} GB)"
    writable = "" if folder["writable"] else ", which is not writable"
    click.echo(f"Python {facts['python']} ({facts['executable']}) on {facts['system']}")
    click.echo(f"{machine['cpus']:g} CPUs, {machine['memory_gb']:g} GB of memory, {gpu}")
    click.echo(f"{folder['free_gb']:g} GB free in {folder['path']}{writable}\n")
    for name, version in facts["packages"].items():
        if version is None:
            _line(False, name, f"pip install {name}")
            continue
        _line(True, name, version)
        for extra, missing in facts["extras"][name].items():
            command = f'pip install "{name}[{extra}]"  (for {", ".join(missing)})'
            _line(not missing, f"  {name}[{extra}]", command if missing else "complete")
    for name, store in facts["stores"].items():
        fact = store["version"] or f"pip install {name}"
        _line(store["version"] is not None, f"{store['for']} paths ({name})", fact)
    groups = [(group.removeprefix("curator.").removesuffix("s"), n) for group, n in facts["registered"].items()]
    counts = ", ".join(count(n, kind) for kind, n in groups)
    click.echo(f"\nregistered: {counts}")
    if facts["bytecode"]:
        click.echo(f"{click.style('slow', fg='yellow', bold=True)}: {facts['bytecode']}")
    for text in facts["broken"]:
        click.echo(f"{click.style('broken', fg='red', bold=True)}: {text}")


def _line(here: bool, name: str, text: str) -> None:
    mark = click.style("yes", fg="green") if here else click.style("no ", fg="yellow")
    click.echo(f"  {mark}  {name:<34} {text}")
