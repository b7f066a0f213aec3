"""The README is true: every command in it runs, every file it names is there, and its figures come from a command."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from projects import REPOSITORY, override

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
WORDS = re.findall(r"`((?:meetara-build|snakemake) [^`]+)`", README)
NEEDS_MORE = ("slurm", "kubernetes")
"""Profiles whose executor is a plugin that these checks do not install."""
GOES_ON = "meetara-build context serve"
"""Ends only when it is stopped: tests/faces/test_serving.py has it at work."""


SHORTER = {"--trials 20": "--trials 2", "--rounds 3": "--rounds 1"}
"""What a test has no time for."""


@pytest.fixture(scope="module")
def folder(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built project in which the README's names mean something."""
    from projects import copy_built

    made = copy_built(built_project, tmp_path_factory.mktemp("readme") / "project")
    rows = (REPOSITORY / "conf" / "domain" / "sleep.jsonl").read_text(encoding="utf-8").splitlines()
    (made / "my.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")

    pairs = [json.loads(row) for row in rows]
    lines = [
        "question,answer",
        *(
            f'"{p["prompt"]}","{p["response"]}"'.replace("\n", " ")
            for p in pairs
            if '"' not in p["prompt"] + p["response"]
        ),
    ]
    (made / "my.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, str]:
    """As after ``make setup``: the profiles are installed, the tools are on the path."""
    above = tmp_path_factory.mktemp("config")
    found = {
        **os.environ,
        "XDG_CONFIG_HOME": str(above),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    subprocess.run(
        ["meetara-build", "profiles", "install"],
        cwd=folder,
        env=found,
        check=True,
        capture_output=True,
    )
    return found


def test_the_readme_has_commands_to_try() -> None:
    assert len(WORDS) > 12


def test_every_command_runs_in_the_order_of_the_readme(
    folder: Path, environment: dict[str, str]
) -> None:
    for words in dict.fromkeys(WORDS):
        if (
            any(f"--profile {name}" in words for name in NEEDS_MORE)
            or "--detailed-exitcode" in words
            or words == GOES_ON
            or words.endswith(" ID")
        ):
            continue
        for much, little in SHORTER.items():
            words = words.replace(much, little)
        command = shlex.split(words)
        if command[0] == "snakemake" and "--report" not in command:
            command.append("-n")
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "loss_curves" in (folder / "report.html").read_text(encoding="utf-8")
    shutil.rmtree(folder / "my-models")


def test_its_agent_is_in_the_plan(
    built_project: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    from projects import copy_built

    [code] = [
        text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "hookimpl" in text
    ]
    project = copy_built(built_project, tmp_path / "project")
    (project / "plugins" / "longer.py").write_text(code, encoding="utf-8")
    for words in (["propose"], ["plan"]):
        done = subprocess.run(
            ["meetara-build", *words], cwd=project, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert re.search(
        r"nutrition training\.epochs: 2 → 4, by longer: the last step was the best", done.stdout
    )


def test_every_file_it_links_to_is_there() -> None:
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPOSITORY / name).exists(), name


def test_the_make_targets_it_names_are_in_the_makefile() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_a_change_of_one_line_plans_what_the_readme_says(
    folder: Path, environment: dict[str, str]
) -> None:
    override(folder, "nutrition", {"training.epochs": 4})
    plan = ["meetara-build", "plan", "nutrition"]
    done = subprocess.run(
        plan, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    shown = done.stdout.splitlines()
    said = r"conf/domain/nutrition.yaml:\d+ training.epochs: \d → 4  → 1 domain, 5 stages"
    assert any(re.fullmatch(said, line) for line in shown), done.stdout
    assert "  RUN     adapter merge gguf: nutrition" in shown
    assert shown[-1].startswith("Plan: ")


def test_its_figures_name_the_commands_they_come_from() -> None:
    figures = README[README.index("## Figures") :]
    for command in re.findall(r"`python -m (bench[\w.]*)", figures):
        place = REPOSITORY / command.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), command


def test_the_inputs_of_strangers_end_as_it_says() -> None:
    kept = json.loads(
        (REPOSITORY / "bench" / "results" / "strangers.json").read_text(encoding="utf-8")
    )["cases"]
    right = sum(one["right"] for one in kept)
    assert f"| all | {right} of {len(kept)} | `python -m bench.strangers` |" in README


def test_near_duplicates_take_as_long_as_it_says() -> None:
    kept = json.loads(
        (REPOSITORY / "bench" / "results" / "near_duplicates.json").read_text(encoding="utf-8")
    )
    taken = (
        f"{kept['seconds'] / 60:.1f} min, {kept['cpu_seconds']:.0f} CPU-s; {kept['peak_gb']:.1f} GB"
    )
    assert (
        f"near-duplicates of {kept['records']:,} records: time; peak memory | 5 min; 4 GB | {taken} |"
        in README
    )
    assert kept["seconds"] < 300 and kept["peak_gb"] < 4


def test_the_ten_answers_are_those_that_were_measured() -> None:
    kept = json.loads(
        (REPOSITORY / "bench" / "results" / "real_base.json").read_text(encoding="utf-8")
    )["domains"]
    rows = re.findall(
        r"^\| (\w+) \| (.+?) \| (.+) \| [^|]+ \|$",
        README.partition("### Ten answers")[2],
        re.MULTILINE,
    )
    rows = [row for row in rows if row[0] != "domain"]
    assert len({domain for domain, _, _ in rows}) == 10
    for domain, prompt, answer in rows:
        first = kept[domain]["answers"][0]
        assert (prompt, answer) == (first["prompt"], " ".join(first["answer"].split()))
    worst = [one["answer"] for one in kept["mental_health"]["answers"]]
    assert any(answer.startswith("You're right. The more you tell people") for answer in worst)
    assert sum(one["packaged"] for one in kept.values()) == len(kept) == 16
