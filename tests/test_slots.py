"""Three domains that Snakemake has trained at once, in slots of one trainer (``slots``)."""

import json
from pathlib import Path
from typing import Any

from commands import snakemake
from projects import copy_built, edit, override

DOMAINS = ("nutrition", "programming", "storytelling")


def train(project: Path, cores: int, warm_folder: Path) -> dict[str, dict[str, Any]]:
    """Have Snakemake make the adapters; each one's training.json, manifest and digest."""
    files = [f"artifacts/{name}/adapter/manifest.json" for name in DOMAINS]
    done = snakemake(project, *files, "--cores", str(cores), TMPDIR=str(warm_folder))
    assert done.returncode == 0, done.stderr
    found = {}
    for name in DOMAINS:
        folder = project / "artifacts" / name / "adapter"
        manifest = json.loads((folder / "manifest.json").read_text())
        report = json.loads((folder / "training.json").read_text())
        found[name] = {
            "digest": manifest["files"]["adapter_model.safetensors"]["sha256"],
            "metrics": manifest["metrics"],
            "computed": report["measured"]["computed"],
        }
    return found


def test_passes_are_shared_and_the_bytes_are_those_of_each_alone(
    built_project: Path, warm_folder: Path, tmp_path: Path
) -> None:
    made = {}
    for cores in (3, 1):
        project = copy_built(built_project, tmp_path / f"cores-{cores}")
        edit(project / "conf" / "hardware" / "cpu.yaml", "slots", 3)
        for name in DOMAINS:
            override(project, name, {"training.batch_tokens": 960})
        made[cores] = train(project, cores, warm_folder)
    for name, together in made[3].items():
        alone = made[1][name]
        assert together["digest"] == alone["digest"]
        assert together["metrics"] == alone["metrics"]
        assert together["metrics"]["company"] == "any"
        shape = {"slots": 3, "slots_at_once": 3, "slot_tokens": 960, "company": "any"}
        assert shape.items() <= together["computed"].items()
        assert alone["computed"]["shared_passes"] == 0
        assert together["computed"]["shared_passes"] > 0
        assert together["computed"]["passes"] == alone["computed"]["passes"]
    shared = sum(one["computed"]["shared_passes"] for one in made[3].values())
    asked = sum(one["computed"]["passes"] for one in made[3].values())
    # A pass that is shared serves two at least.
    assert asked - shared / 2 < 0.9 * asked
