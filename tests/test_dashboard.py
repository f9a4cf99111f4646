"""The Grafana dashboard uses existing metrics with their labels; the page on metrics names all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from curator_core.accounts.metrics import COMMON, METRICS

DOCS = Path(__file__).parents[1] / "docs"
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text())
_WORDS = {"sum", "max", "min", "by", "rate", "time", "__rate_interval", "label_values", "run"}


def queries() -> list[str]:
    asked = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return asked + [item["query"] for item in DASHBOARD["templating"]["list"] if item["type"] == "query"]


@pytest.mark.parametrize("query", queries())
def test_every_query_names_metrics_that_exist_with_their_labels(query: str) -> None:
    names = re.findall(r"\$\{prefix\}(\w+)", query)
    assert names
    assert set(names) <= METRICS.keys()
    labels = {*COMMON, *(label for name in names for label in METRICS[name].labels)}
    plain = re.sub(r'"[^"]*"', "", query.replace("${prefix}", ""))
    assert set(re.findall(r"[a-z_]\w*", re.sub(r"\$__\w+", "", plain))) <= labels | _WORDS | set(names)
    assert query.count("(") == query.count(")")
    assert query.count("{") == query.count("}")


@pytest.mark.parametrize("target", [target for panel in DASHBOARD["panels"] for target in panel["targets"]])
def test_every_legend_names_labels_that_the_query_leaves(target: dict[str, Any]) -> None:
    by = re.search(r"by \(([^)]*)\)", target["expr"])
    (first, *_) = re.findall(r"\$\{prefix\}(\w+)", target["expr"])
    left = set(by[1].split(", ")) if by else {*COMMON, *METRICS[first].labels}
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left


def test_the_dashboard_and_the_page_have_every_metric_except_redundant_ones() -> None:
    asked = {name for query in queries() for name in re.findall(r"\$\{prefix\}(\w+)", query)}
    assert METRICS.keys() - asked == {"curator_sources_skipped", "curator_stage_calls_total"}
    page = (DOCS / "metrics.md").read_text()
    rows = re.findall(r"^\| `(curator_\w+)` \| (\w+) \| ([^|]*) \|", page, re.MULTILINE)
    assert [(name, kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows] == [
        (name, metric.kind, list(metric.labels)) for name, metric in METRICS.items()
    ]
