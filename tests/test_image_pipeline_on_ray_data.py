"""How Ray Data runs the image pipeline, operator by operator."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]


def test_the_plan_of_the_image_pipeline_has_an_operator_for_each_group() -> None:
    ray = pytest.importorskip("ray")
    pytest.importorskip("curator_image")
    from ray.data._internal.logical.optimizers import get_execution_plan

    from curator_backends.cluster import Cluster, Node, connect
    from curator_backends.links import WorkerLink
    from curator_backends.options import RayOptions
    from curator_backends.ray_data.operators import add_group
    from curator_backends.ray_data.placement import place
    from curator_backends.transport import encode
    from curator_backends.worker import Job
    from curator_core import FileGroupTask, RunContext
    from curator_core.planning.make import make_plan
    from curator_image import ImageReader, ImageWriter
    from curator_image.aesthetic import AestheticFilter
    from curator_image.embedding import ImageEmbedding
    from curator_image.nsfw import NSFWFilter

    cluster = Cluster((Node("a", True, 16.0, 2.0, 64.0),), False, "the cluster", None, 80.0)
    plan = make_plan(
        [
            ImageReader(paths="in/*.tar"),
            ImageEmbedding(gpu_memory_gb=20.0),
            AestheticFilter(),
            NSFWFilter(),
            ImageWriter(path="out"),
        ],
        cluster.machine(),
        simultaneous=True,
    )
    groups = plan.segments[0].groups
    placements, _ = place(groups, cluster)
    with connect(RayOptions(num_cpus=2)):
        dataset: Any = ray.data.from_blocks([encode([FileGroupTask(data=["in/a.tar"], task_id="a")])])
        for index, (group, placement) in enumerate(zip(groups, placements, strict=True)):
            dataset = add_group(dataset, Job("", index, group, RunContext()), placement, WorkerLink(""))
        execution = get_execution_plan(dataset._logical_plan)
        operator = (execution[0] if isinstance(execution, tuple) else execution).dag
    names = [operator.name]
    while operator.input_dependencies:
        operator = operator.input_dependencies[0]
        names.append(operator.name)
    assert names[::-1] == [
        "Input",
        "MapBatches(ImageReadTask)->StreamingRepartition[num_rows_per_block=1,strict=False]",
        "MapBatches(ImageDecodeActor)",
        "MapBatches(ImageEmbedding+AestheticFilter+NSFWFilterActor)",
        "MapBatches(ImageWriterTask)",
    ]
    assert [(p.mode, p.num_gpus) for p in placements] == [("task", 0), ("actor", 0), ("actor", 0.25), ("task", 0)]
