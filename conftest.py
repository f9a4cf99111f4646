"""What every test of the workspace shares: skips for what is not installed, and who may run beside whom."""

from __future__ import annotations

import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

# marker -> (module that must be importable, what brings it)
ENGINES = {
    "ray": ("ray", "curator-backends[ray]"),
    "xenna": ("cosmos_xenna", "curator-backends[xenna]"),
    "models": ("transformers", "the [models] extra of the package"),
    "dali": ("nvidia.dali", "curator-image[dali]"),
}

# Only here are tests marked ray or xenna: `make test` looks for them nowhere else.
ENGINE_TESTS = ("packages/curator-backends/tests", "tests")

# The folders of tests (`tmp_path`) are in memory, if it has room for several times what all of them need.
MEMORY, MEMORY_BYTES = Path("/dev/shm"), 4 << 30  # noqa: S108 - pytest makes a folder of its own there

# The tests that start clusters: two clusters on a small machine starve each other, so one pytest worker runs them all.
CLUSTER = "cluster"
# The tests that write to an object store: its server takes seconds to start.
OBJECT_STORE = "object-store"
# The tests that load torch and transformers, which takes a process five seconds or more.
MODELS = "models"

BROWSERS = ("chromium", "chromium-browser", "google-chrome")

# A test that takes longer than this has the mark `slow`, so that the others together take less than a minute.
SLOW_SECONDS = 0.2
# A test without the mark is named when it takes twice that: a busy machine makes every test a little slower.
NAMED_SECONDS = 2 * SLOW_SECONDS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-extras",
        action="store_true",
        help="run tests marked ray, xenna, models and dali even if what they need is missing, so that they fail",
    )
    parser.addoption(
        "--require-browser",
        action="store_true",
        help="run tests marked browser even without a Chromium, so that they fail",
    )


def pytest_configure() -> None:
    # A shell starts its background jobs with Ctrl-C ignored, and every process below inherits that: tests that press
    # it would wait for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Many tests write records that are flushed to the disk, and would wait for it most of their time.
    if "PYTEST_DEBUG_TEMPROOT" not in os.environ and _has_room(MEMORY):
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)
    # How long an example takes says more about the machine than about the code.
    settings.register_profile("patient", settings(), deadline=None)
    settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = {} if config.getoption("--require-extras") else _missing_engines()
    has_gpu = Path("/dev/nvidiactl").exists()
    has_browser = config.getoption("--require-browser") or any(map(shutil.which, BROWSERS))
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        for name in sorted(marks & missing.keys()):
            item.add_marker(pytest.mark.skip(reason=missing[name]))
        if "browser" in marks and not has_browser:
            item.add_marker(pytest.mark.skip(reason=f"needs a Chromium on PATH: one of {', '.join(BROWSERS)}"))
        if "gpu" in marks and not has_gpu:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
        # All others are dealt out one by one, so that no worker waits at the end for a long file of another one.
        if "xdist_group" not in marks and (group := _group_of(item, marks)):
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a pytest and a pytest-xdist that do not go together: each worker would start clusters of its own. Refuse a
    test of an engine where `make test` does not look for one.
    """
    for item in session.items:
        if any(map(item.get_closest_marker, ("ray", "xenna"))) and not item.nodeid.startswith(ENGINE_TESTS):
            raise pytest.UsageError(
                f"{item.nodeid} is marked ray or xenna, and `make test` looks for such tests only in "
                f"{' and '.join(ENGINE_TESTS)}: move it there"
            )
    grouped = (item for item in session.items if item.get_closest_marker("xdist_group"))
    if session.config.getoption("loadgroup", False) and any("@" not in item.nodeid for item in grouped):
        raise pytest.UsageError(
            f"pytest {pytest.__version__} hides the groups of tests from the installed pytest-xdist, so that tests of "
            "one group would run in several processes; run `make sync`, or use `-n 0`"
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name tests that lack the mark `slow`, and show why a test failed that passed at its second go."""
    unmarked = slow_without_mark(report for reports in terminalreporter.stats.values() for report in reports)
    if unmarked:
        terminalreporter.write_sep("_", f"mark these as slow: they took more than {NAMED_SECONDS} s")
        for name, seconds in unmarked:
            terminalreporter.write_line(f"{seconds:.2f} s {name}")
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.write_sep("_", f"first go of {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)
        for name, content in report.sections:
            terminalreporter.write_line(f"{name}:\n{content[-4000:]}")


def slow_without_mark(reports: Iterable[object]) -> list[tuple[str, float]]:
    """The tests without the mark `slow` whose set-up and call took longer than ``NAMED_SECONDS``, the longest first."""
    took: defaultdict[str, float] = defaultdict(float)
    for report in reports:
        if (
            isinstance(report, pytest.TestReport)
            and report.when != "teardown"
            and not report.keywords.keys() & {"slow", *ENGINES}
        ):
            took[report.nodeid] += report.duration
    return sorted(
        ((name, seconds) for name, seconds in took.items() if seconds > NAMED_SECONDS), key=lambda one: -one[1]
    )


def _group_of(item: pytest.Item, marks: set[str]) -> str | None:
    """The group of tests that share a pytest worker, if they do."""
    if marks & {"ray", "xenna"}:
        return CLUSTER
    if "models" in marks:
        return MODELS
    return OBJECT_STORE if "s3_bucket" in getattr(item, "fixturenames", ()) else None


def _has_room(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > MEMORY_BYTES


def _missing_engines() -> dict[str, str]:
    return {
        marker: f"needs {extra}: module {module!r} is not installed"
        for marker, (module, extra) in ENGINES.items()
        if not _installed(module)
    }


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name
        return False
