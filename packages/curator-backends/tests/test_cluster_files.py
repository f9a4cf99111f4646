"""The files for Slurm and Kubernetes run on this machine, and follow the rules of the programs that read them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_clusters import processes_of

from curator_core.testing.waiting import wait_for

FILES = Path(__file__).parents[3] / "examples" / "cluster"

# One machine plays both nodes of the allocation.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = "#!/usr/bin/env bash\nprintf 'one\\ntwo\\n'\n"

PIPELINE = """
name: words
stages:
  - curator_core.testing.stages.ListFiles: {paths: [PATHS]}
  - curator_core.testing.stages.ReadRows:
  - curator_core.testing.stages.SplitRows:
  - curator_core.testing.stages.WriteRows: {path: out}
run_dir: run
"""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.thorough
def test_the_slurm_script_starts_a_cluster_runs_on_it_and_leaves_nothing_behind(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from curator_core.testing.conformance import write_documents

    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(text)
        command.chmod(0o755)
    paths = write_documents(tmp_path / "in", files=4, documents=12)
    (tmp_path / "words.yaml").write_text(PIPELINE.replace("PATHS", ", ".join(paths)))
    job = next(number for number in range(1, 1000) if is_free(6379 + number))  # the job decides the port
    environment = {
        **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
        "PATH": os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": str(tmp_path),  # `ray get-auth-token` leaves a token there that every later Ray would require
        "SLURM_JOB_ID": str(job),
        "SLURM_JOB_NODELIST": "some[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_ON_NODE": "1",
    }
    done = subprocess.run(
        ["bash", str(FILES / "slurm.sbatch"), "words.yaml", "--json", "--quiet"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    summary = json.loads(done.stdout[done.stdout.index("\n{\n") :].partition("\n}\n")[0] + "\n}")
    assert summary["executor"] == "RayDataExecutor"
    assert summary["results"] == 12
    assert len(list((tmp_path / "out").glob("*.jsonl"))) == 12
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["machine"]["cpus"] == 2, "the run was to see both nodes"
    port = str(6379 + job % 1000)
    wait_for(lambda: not processes_of(f":{port} "), "processes of the cluster are left", seconds=60.0)


def test_the_job_for_kubernetes_has_the_fields_that_its_reader_requires() -> None:
    job: dict[str, Any] = yaml.safe_load((FILES / "kuberay-job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    # Names in RayJobSpec of ray.io/v1 that a job may use.
    known = {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec"}
    assert set(spec) <= known
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(head) == {"rayStartParams", "template"}
    for worker in workers:
        assert set(worker) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
        assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]
    images = set()
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay takes text only"
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        images.add(container["image"])
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert len(images) == 1, "all nodes need the same packages"
    assert len({worker["groupName"] for worker in workers}) == len(workers)
