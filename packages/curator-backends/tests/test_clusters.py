"""Clusters are started, used, lost and left, each in its own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stages_for_tests import lives

from curator_core.testing.waiting import wait_for

pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]

HERE = Path(__file__).parent

LOCAL = """
import json, sys
from pathlib import Path
import ray
import stages_for_tests as s
from curator_backends import RayDataExecutor, supervisor
from curator_core.pipeline import Pipeline

folder, until = sys.argv[1:]
supervisor.TEARDOWN_SECONDS_AFTER_ERROR = 1.0  # the call that Ctrl-C interrupts takes longer than any limit

class Known(RayDataExecutor):
    def open(self):
        super().open()
        (Path(folder) / "session").write_text(ray.get_runtime_context().get_session_name())

    def close(self):
        (Path(folder) / "actors").write_text(json.dumps(ray.util.list_named_actors(all_namespaces=True)))
        super().close()

result = Pipeline([s.Where(until=until, folder=folder)]).run(Known(num_cpus=2), initial_tasks=s.tasks(4))
left = [pid for pid in set(s.column(result, "pid")) if s.lives(pid)]
assert len(result) == 4
assert not left, f"workers are left: {left}"
assert not ray.is_initialized()
"""

CLUSTER = """
import json, re, sys, urllib.request
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
import stages_for_tests as s
from curator_backends import RayDataExecutor
from curator_core.pipeline import Pipeline
from curator_core.model.resources import Resources
from curator_core.running.telemetry import MetricsOptions
from curator_core.testing import Subject, checks
from curator_core.testing.waiting import wait_for

folder = Path(sys.argv[1])
# A node that is gone is missed after five checks in vain: of half a second, where Ray takes three.
checked = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 500, "metrics_report_interval_ms": 500}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "_system_config": checked})
workers = [cluster.add_node(num_cpus=1, num_gpus=int(n == 1)) for n in range(3)]
cluster.wait_for_nodes()
head = cluster.head_node.node_id
report = {"head": head}
quiet = folder / "quiet"
quiet.mkdir()
result = Pipeline([s.Plain(), s.Rows(), s.Where(folder=str(quiet)).with_(num_workers=3)]).run(
    RayDataExecutor(address=cluster.address, ignore_head_node=True), initial_tasks=s.tasks(6, rows=4)
)
report["nodes"] = sorted(set(s.column(result, "node")))
report["setups"] = {path.name: len(path.read_text().split()) for path in quiet.glob("node-*")}
# Runs that follow use this connection, and the workers of the one before.
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
mixed = folder / "mixed"
mixed.mkdir()
stage = s.Where(folder=str(mixed)).with_(resources=Resources(cpus=0.5, gpus=1))
result = Pipeline([s.Plain(), stage], name="mixed").run(
    RayDataExecutor(ignore_head_node=True), initial_tasks=s.tasks(6), metrics=MetricsOptions()
)
report["gpu_node"] = workers[1].node_id
report["on_gpus"] = sorted(set(s.column(result, "node")))
report["set_up"] = [path.name for path in mixed.glob("node-*")]
mine = ray.get_runtime_context().get_node_id()  # on one machine any node may be the driver's
(port,) = [node["MetricsExportPort"] for node in ray.nodes() if node["NodeID"] == mine]

def scraped() -> dict[str, float]:
    # What Ray's agent of this node serves to a scraper: the rows that stages of the run have let through.
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    mine = [line for line in lines if line.startswith("ray_curator_stage_rows_out_total") and 'run="mixed"' in line]
    return {re.search('stage="([^"]*)"', line)[1]: float(line.rpartition(" ")[2]) for line in mine}

# Each process hands its numbers to the agent twice a second.
report["rows_out"] = {stage.name: stage.rows_out for stage in result.summary.stages}
wait_for(lambda: report.update(scraped=scraped()) or report["scraped"] == report["rows_out"], "the last numbers of the run")

def lose_node() -> None:
    cluster.remove_node(next(node for node in workers if node.node_id != mine), allow_graceful=False)

subject = Subject("ray_data", {"ignore_head_node": True}, {"nodes"}, lose_node=lose_node)
(check,) = [check for check in checks(subject) if "nodes" in check.needs]
check.run(subject, folder)
report["alive"] = sum(node["Alive"] for node in ray.nodes())
ray.shutdown()
cluster.shutdown()
(folder / "report.json").write_text(json.dumps(report))
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    of_the_shared_ray = ("RAY_ADDRESS", "RAY_DATA_USAGE_DISABLED")
    environment = {key: value for key, value in os.environ.items() if key not in of_the_shared_ray}
    environment["PYTHONPATH"] = str(HERE)
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def processes_of(session: str) -> list[str]:
    """The commands of all processes that belong to a Ray session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended since
        if session in command:
            found.append(command)
    return found


def test_a_local_ray_is_started_used_and_stopped_without_printing_anything(tmp_path: Path) -> None:
    process = start(LOCAL, str(tmp_path), "")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert (out, err) == ("", "")
    assert processes_of((tmp_path / "session").read_text()) == []
    assert json.loads((tmp_path / "actors").read_text()) == [], "Ray Data has started actors that serve no run"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
def test_a_local_ray_is_gone_when_its_driver_is_stopped(tmp_path: Path, how: signal.Signals) -> None:
    process = start(LOCAL, str(tmp_path), str(tmp_path / "never"))
    wait_for(lambda: list(tmp_path.glob("began-*")) or process.poll() is not None, "no task began", seconds=300.0)
    assert process.poll() is None, process.communicate()[1]
    session = (tmp_path / "session").read_text()
    running = processes_of(session)
    assert any("raylet" in command for command in running)
    for idle in ("monitor.py", "log_monitor.py", "dashboard/dashboard.py"):
        assert not any(idle in command for command in running), f"{idle} serves no run, and was started"
    process.send_signal(how)
    _, err = process.communicate(timeout=200)
    assert process.returncode != 0
    if how is signal.SIGINT:
        assert "KeyboardInterrupt" in err
        workers = [int(pid) for path in tmp_path.glob("node-*") for pid in path.read_text().split()]
        assert workers
        assert not [pid for pid in workers if lives(pid)], "workers are left"
        assert processes_of(session) == []
    wait_for(lambda: not processes_of(session), "processes of the session are left", seconds=90.0)


@pytest.mark.thorough
def test_the_head_is_avoided_and_the_executor_conforms_when_a_node_is_lost(tmp_path: Path) -> None:
    process = start(CLUSTER, str(tmp_path))
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0, err[-3000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["head"] not in report["nodes"]
    assert len(report["nodes"]) >= 2
    assert report["setups"]
    assert set(report["setups"].values()) == {1}, "setup_on_node runs once on a node"
    assert report["on_gpus"] == [report["gpu_node"]]
    assert report["set_up"] == [f"node-{report['gpu_node']}"], "nodes without a GPU are not set up for a GPU stage"
    assert report["scraped"] == report["rows_out"], "Ray's metrics are the numbers of the run"
    assert sum(report["rows_out"].values()) > 0
    assert report["alive"] == 3, "the cluster is left as it was, less the node that we removed"
