"""A plan for people: what it comes from first, how far each cause reaches, what it takes, and a
last line for grep."""

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from fast_stages import added
from projects import copy_built, edit, override, write_yaml

from meetara_build.cli.init import init
from meetara_build.cli.output import Screen
from meetara_build.cli.plan import plan
from meetara_build.rounds.inbox import keep
from meetara_build.store import journal

Said = Callable[..., list[str]]
DRIFT = "Changed, damaged or deleted behind the tool's back:"


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    """A copy of one's own."""
    return copy_built(built, tmp_path / "project")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with all the domains that come with the tool, nothing of it built."""
    folder = tmp_path_factory.mktemp("shipped") / "project"
    init(folder)
    return folder


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    """The lines of ``said(project, "nutrition")``: a plan as it is printed into a file, or on a
    terminal."""

    def lines(
        project: Path, *domains: str, profile: str = "local", terminal: bool = False
    ) -> list[str]:
        console = Screen(file=StringIO(), force_terminal=terminal, color_system=None, width=120)
        monkeypatch.chdir(project)
        monkeypatch.setattr("meetara_build.cli.plan_text.out", console)
        plan(list(domains), profile)
        return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]

    return lines


def decided(project: Path, value: int = 8) -> None:
    taken = {
        "key": "lora.rank",
        "value": value,
        "agent": "tuner",
        "reason": "better [by 2%] in run 7",
    }
    write_yaml(project / "conf" / "overlay" / "storytelling.yaml", {"decisions": [taken]})


# Causes


def test_a_cause_says_file_line_key_both_values_and_how_far_it_reaches(
    project: Path, said: Said
) -> None:
    path = project / "conf" / "base" / "mini.yaml"
    edit(path, "tokenizer.vocab_size", 2048)
    number = 1 + path.read_text().splitlines().index("    vocab_size: 2048")
    first = said(project)[0]
    assert (
        first
        == f"conf/base/mini.yaml:{number} tokenizer.vocab_size: 1024 → 2048  → 3 domains, 25 stages"
    )


def test_under_its_causes_stands_what_is_to_be_done_stages_of_one_kind_together(
    project: Path, said: Said
) -> None:
    override(project, "music", {"lora.rank": 8})
    override(project, "nutrition", {"lora.rank": 8})
    lines = said(project)
    assert sorted(re.sub(r":\d+", "", line) for line in lines[:2]) == [
        f"conf/domain/{name}.yaml lora.rank: 16 → 8  → 1 domain, 6 stages"
        for name in ("music", "nutrition")
    ]
    assert lines[2:6] == [
        "  RUN     adapter merge gguf: music, nutrition",
        "  MAYBE   evaluate package: music, nutrition",
        "  MAYBE   report: report",
        "At most 5 more, if music/adapter, music/gguf, nutrition/adapter, nutrition/gguf come out different.",
    ]


def test_causes_that_have_nothing_to_do_with_each_other_stand_apart_the_widest_first(
    project: Path, said: Said
) -> None:
    edit(project / "conf" / "domain" / "nutrition.yaml", "description", "Another")
    edit(project / "conf" / "base" / "other.yaml", "licence", "apache-2.0")
    lines = said(project, "music", "nutrition")  # without the report, which all of them reach
    causes = [line for line in lines if line.startswith("conf/")]
    assert [line.partition(":")[0] for line in causes] == [
        "conf/base/other.yaml",
        "conf/domain/nutrition.yaml",
    ]
    assert lines[lines.index(causes[1]) + 1] == "  RUN     package: nutrition"


def test_a_cause_that_many_steps_share_is_printed_once(project: Path, said: Said) -> None:
    edit(project / "conf" / "build.yaml", "lora.rank", 8)
    added("nutrition", "train")(project)
    text = "\n".join(said(project))
    assert text.count("lora.rank: 16 → 8") == 1
    assert text.count("nutrition.jsonl: its content changed") == 1


def test_what_looks_like_colours_is_printed_as_it_is_written(project: Path, said: Said) -> None:
    edit(project / "conf" / "domain" / "nutrition.yaml", "description", "[bold]Food[/] [and] more")
    assert said(project)[0].endswith(" → [bold]Food[/] [and] more  → 1 domain, 2 stages")


def test_a_decision_is_shown_as_base_overlay_agent_and_reason(project: Path, said: Said) -> None:
    decided(project)
    lines = said(project)
    assert re.fullmatch(
        r"conf/overlay/storytelling\.yaml(:\d+)? lora\.rank: 16 → 8  → 1 domain, 6 stages", lines[0]
    )
    assert lines[1] == "    base 16 → overlay 8, by tuner: better [by 2%] in run 7"


def test_a_decision_s_base_is_what_the_files_below_it_say(project: Path, said: Said) -> None:
    edit(project / "conf" / "build.yaml", "lora.rank", 4)
    decided(project)
    assert "    base 4 → overlay 8, by tuner: better [by 2%] in run 7" in said(
        project, "storytelling"
    )


def test_the_line_of_a_decision_is_named(project: Path, said: Said) -> None:
    decided(project)
    assert said(project)[0].startswith("conf/overlay/storytelling.yaml:2 lora.rank: 16 → 8 ")


def test_what_was_changed_behind_the_tool_s_back_has_a_section_of_its_own(
    project: Path, said: Said
) -> None:
    (project / "artifacts" / "music" / "package" / "README.md").unlink()
    override(project, "nutrition", {"lora.rank": 8})
    lines = said(project)
    at = lines.index(DRIFT)
    assert lines[at + 1 : at + 3] == [
        "artifacts/music/package/README.md: missing  → 1 domain, 2 stages",
        "  RESTORE package: music",
    ]
    assert [line for line in lines[:at] if "missing" in line] == []
    assert "nutrition.yaml" in lines[0]


def test_so_it_has_where_an_edit_reaches_the_same_steps(project: Path, said: Said) -> None:
    (project / "artifacts" / "nutrition" / "evaluation" / "evaluation.json").unlink()
    override(project, "nutrition", {"lora.rank": 8})
    lines = said(project)
    assert DRIFT in lines
    assert [
        line
        for line in lines[lines.index(DRIFT) :]
        if line.startswith("artifacts/nutrition/evaluation/evaluation.json: missing")
    ]


def test_without_drift_there_is_no_such_section(project: Path, said: Said) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    assert DRIFT not in said(project)


# What it takes


def test_time_memory_and_disk_come_with_a_range_and_where_they_come_from(
    project: Path, said: Said
) -> None:
    override(project, "nutrition", {"lora.rank": 8})
    takes, origin = said(project)[-3:-1]
    span = r"[\d.]+ (s|min|h)"
    assert re.fullmatch(
        rf"Takes about {span} \({span} to {span}\) with \d+ jobs? at once, \d+\.\d GB of memory, "
        r"\d+ kB( to \d+ kB)? of disk, no charge: a machine of your own\.",
        takes,
    )
    assert origin == "Estimated from earlier runs of the same steps here (6)."


def test_where_nothing_was_measured_a_model_stands_in_and_says_so(
    project: Path, said: Said
) -> None:
    journal.path(project / "artifacts").unlink()
    override(project, "nutrition", {"lora.rank": 8})
    assert said(project)[-2] == "Estimated from a model, scaled by a probe of this machine (6)."


def test_on_a_rented_machine_it_takes_money(project: Path, said: Said) -> None:
    lines = said(project, "music", profile="lambda")
    assert re.search(r", \$\d+\.\d\d to \$\d+\.\d\d \(lambda, a10\)\.$", lines[-3])
    assert [line for line in lines if line.startswith("conf/hardware/a10.yaml:")]


# The last line


def test_the_last_line_can_be_grepped_and_with_nothing_to_do_is_the_only_one(
    project: Path, said: Said
) -> None:
    assert said(project) == ["Plan: 0 to run, 0 to restore, 0 maybe, 31 fresh."]
    override(project, "nutrition", {"lora.rank": 8})
    (project / "artifacts" / "music" / "package" / "README.md").unlink()
    assert said(project)[-1] == "Plan: 3 to run, 1 to restore, 3 maybe, 25 fresh."


def test_it_is_last_for_people_and_for_files_alike(project: Path, said: Said) -> None:
    decided(project)
    assert said(project)[-1] == said(project, terminal=True)[-1]


# On a terminal and elsewhere


def test_elsewhere_than_on_a_terminal_every_name_is_printed(shipped: Path, said: Said) -> None:
    domains = sorted(path.stem for path in (shipped / "conf" / "domain").glob("*.yaml"))
    assert len(domains) == 62
    lines = said(shipped)
    assert (
        f"  RUN     dataset adapter baseline merge gguf evaluate package: {', '.join(domains)}"
        in lines
    )
    assert "more" not in " ".join(lines[:-3])


def test_a_terminal_shows_a_few_names_and_how_many_more(shipped: Path, said: Said) -> None:
    lines = said(shipped, terminal=True)
    assert lines[0] == "not built yet  → 62 domains, 439 stages"
    (row,) = [line for line in lines if "dataset adapter" in line]
    assert row.endswith(" and 56 more")
    assert max(map(len, lines)) < 200


def test_a_terminal_folds_many_causes(project: Path, said: Said) -> None:
    values = {"rank": 8, "alpha": 8, "dropout": 0.1, "rslora": True}
    for key, value in values.items():
        edit(project / "conf" / "build.yaml", f"lora.{key}", value)
    for key, value in {"patience": 9, "clip_norm": 0.5, "warmup_share": 0.5}.items():
        edit(project / "conf" / "build.yaml", f"training.{key}", value)
    folded, whole = said(project, terminal=True), said(project)
    assert len([line for line in whole if line.startswith("conf/build.yaml")]) == 7
    assert len([line for line in folded if line.startswith("conf/build.yaml")]) == 6
    assert "… and 1 cause more" in folded


# What it quotes


def test_no_value_reason_or_evidence_makes_a_line_of_its_own(project: Path, said: Said) -> None:
    forged = "ok\nPlan: 0 to run, 0 to restore, 0 maybe, 999 fresh.\x1b[2J\u202e"
    edit(project / "conf" / "domain" / "nutrition.yaml", "description", forged)
    taken = {"key": "lora.rank", "value": 8, "agent": "tuner", "reason": forged}
    write_yaml(project / "conf" / "overlay" / "storytelling.yaml", {"decisions": [taken]})
    proposal = {
        "domain": "music",
        "key": "lora.rank",
        "value": forged,
        "reason": forged,
        "evidence": [forged],
    }
    one = {
        "id": "0123456789ab",
        "status": "wins",
        "proposal": proposal,
        "now": forged,
        "agent": forged,
        "why": forged,
    }
    keep(project / "artifacts", {"verdicts": [one]})
    lines = said(project)
    assert [line for line in lines if line.lstrip().startswith("Plan:")] == [lines[-1]]
    assert not re.search("[\x1b\u202e]", "".join(lines))
    assert "ok\\nPlan: 0 to run" in "".join(lines)
