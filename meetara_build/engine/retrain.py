"""A training once more with another seed, beside what is built: nothing of it is kept but its
figures."""

import os
import shutil
from typing import Any

from meetara_build.engine import job, warm
from meetara_build.errors import BuildError
from meetara_build.graph import Graph
from meetara_build.outside import parse_json


def repeat_training(graph: Graph, domain: str, seed: int) -> dict[str, Any]:
    """The metrics of a domain's adapter as it is configured now, trained with another seed.

    Raises:
        BuildError: the training failed.
    """
    step = graph.step("adapter", domain)
    folder = graph.root / ".work" / f"repeat-{domain}-{os.getpid()}"
    output = folder / "out"
    output.mkdir(parents=True, exist_ok=True)
    inputs = {name: str(graph.root / given.place.folder) for name, given in step.inputs.items()}
    request = {
        "name": f"{domain}/adapter, once more",
        "stage": "adapter",
        "recipe": {**step.told, "seed": seed},
        "inputs": inputs | step.sources,
        "output": str(output),
        "threads": step.threads,
        "gpus": step.gpus,
        "root": str(graph.root),
        "about": {"domain": domain, "stage": "repeat"},
        "debug": False,
        "report": str(graph.root / "logs" / domain / "repeat.traceback"),
    }
    try:
        if warm.ask(request) != 0:
            raise BuildError(
                f"{domain}: training once more with another seed failed; its reason is above"
            )
        metrics: dict[str, Any] = parse_json(output.with_name(job.FIGURES).read_bytes())["metrics"]
        return metrics
    finally:
        shutil.rmtree(folder, ignore_errors=True)
