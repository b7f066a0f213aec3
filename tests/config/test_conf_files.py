"""What is read below conf/ and what is looked at for changes is the same: through links too, and
without what editors leave."""

import os
import shutil
from pathlib import Path

import pytest
from projects import edit, override, read_yaml, small_project, write_yaml

from meetara_build.config.conf_files import list_conf, list_group
from meetara_build.config.resolve import Configuration
from meetara_build.errors import ConfigError
from meetara_build.graph import load


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path / "project", ["nutrition", "programming"])


def swap(link: Path, target: Path | str) -> None:
    """As a release does it: the link leads elsewhere from one moment to the next."""
    new = link.with_name("new-link")
    new.symlink_to(target)
    new.replace(link)


def source_digest(project: Path) -> str:
    sources: dict[str, str] = load(project).step("dataset", "nutrition").made_from["sources"]
    return sources["source_0"]


def two_versions(folder: Path, project: Path) -> tuple[Path, Path]:
    """The records of nutrition, and half of them, each in a folder of its own."""
    lines = (project / "conf" / "domain" / "nutrition.jsonl").read_text().splitlines(keepends=True)
    for name, kept in (("v1", lines), ("v2", lines[::2])):
        (folder / name).mkdir(parents=True)
        (folder / name / "nutrition.jsonl").write_text("".join(kept))
    return folder / "v1", folder / "v2"


# Links that lead elsewhere


def test_a_data_file_that_is_a_link_to_another_file_now_is_seen(
    project: Path, tmp_path: Path
) -> None:
    first, second = two_versions(tmp_path / "data", project)
    link = project / "conf" / "domain" / "nutrition.jsonl"
    swap(link, first / "nutrition.jsonl")
    before = source_digest(project)
    swap(link, second / "nutrition.jsonl")
    assert source_digest(project) != before
    swap(link, first / "nutrition.jsonl")
    assert source_digest(project) == before


def test_a_folder_on_the_way_to_the_data_that_is_a_link_to_another_folder_now_is_seen(
    project: Path, tmp_path: Path
) -> None:
    first, second = two_versions(tmp_path / "data", project)
    (project / "data").symlink_to(first)
    edit(
        project / "conf" / "domain" / "nutrition.yaml",
        "sources",
        [{"path": "../../data/nutrition.jsonl"}],
    )
    before = source_digest(project)
    swap(project / "data", second)
    assert source_digest(project) != before


def test_a_folder_of_data_that_is_a_link_is_seen_and_so_is_one_in_it(
    project: Path, tmp_path: Path
) -> None:
    first, second = two_versions(tmp_path / "data", project)
    (project / "shards").mkdir()
    (project / "shards" / "part").symlink_to(first)
    edit(project / "conf" / "domain" / "nutrition.yaml", "sources", [{"path": "../../shards"}])
    before = source_digest(project)
    swap(project / "shards" / "part", second)
    assert source_digest(project) != before


def test_a_base_s_folder_that_is_a_link_to_another_one_now_is_seen(project: Path) -> None:
    for name in ("v1", "v2"):
        (project / "models" / name).mkdir(parents=True)
        (project / "models" / name / "config.json").write_text(f'{{"is": "{name}"}}')
    (project / "models" / "own").symlink_to("v1")
    write_yaml(
        project / "conf" / "base" / "mine.yaml",
        {
            "description": "x",
            "licence": "mit",
            "chat_template": "chatml",
            "parameters": 1,
            "folder": "models/own",
        },
    )
    override(project, "nutrition", {"base": "mine"})
    before = load(project).step("base", "base/mine").fingerprint
    swap(project / "models" / "own", "v2")
    assert load(project).step("base", "base/mine").fingerprint != before


def test_a_folder_that_becomes_a_link_moves_what_is_written_from_it(
    project: Path, tmp_path: Path
) -> None:
    """The files are the same, but ``../`` leads from another place now."""
    edit(
        project / "conf" / "domain" / "nutrition.yaml", "sources", [{"path": "../nutrition.jsonl"}]
    )
    (project / "conf" / "domain" / "nutrition.jsonl").rename(project / "conf" / "nutrition.jsonl")
    before = source_digest(project)
    shared = tmp_path / "shared" / "domain"
    shared.parent.mkdir()
    (project / "conf" / "domain").rename(shared)
    (project / "conf" / "domain").symlink_to(shared)
    (shared.parent / "nutrition.jsonl").write_text(
        '{"prompt": "Is it another?", "response": "Yes, another."}\n'
    )
    assert source_digest(project) != before


# Linked folders below conf/


def moved_out(project: Path, group: str, shared: Path) -> Path:
    """A folder of conf/ that a team shares: it lies elsewhere, and a link leads to it."""
    shutil.move(project / "conf" / group, shared / group)
    (project / "conf" / group).symlink_to(shared / group)
    return shared / group


def test_an_edit_in_a_linked_folder_of_domains_is_seen(project: Path, tmp_path: Path) -> None:
    shared = moved_out(project, "domain", tmp_path)
    before = load(project)
    override(project, "nutrition", {"training.epochs": 5})
    assert load(project).step("adapter", "nutrition").recipe["training"]["epochs"] == 5
    assert before.step("adapter", "nutrition").recipe["training"]["epochs"] != 5
    edit(shared / "nutrition.yaml", "nonsense", 1)
    with pytest.raises(ConfigError, match=r"unknown key 'domain\.nonsense'"):
        load(project)


@pytest.mark.parametrize("group", ["overlay", "base", "hardware", "profile", "provider", "safety"])
def test_what_lies_in_a_linked_folder_is_listed(project: Path, tmp_path: Path, group: str) -> None:
    _, before = list_conf(project / "conf")
    shared = moved_out(project, group, tmp_path)
    if group == "overlay":
        write_yaml(shared / "nutrition.yaml", {"decisions": []})
        before = sorted([*before, str(project / "conf" / "overlay" / "nutrition.yaml")])
    assert sorted(list_conf(project / "conf")[1]) == sorted(before)


def test_a_decision_in_a_linked_overlay_is_seen(project: Path, tmp_path: Path) -> None:
    shared = moved_out(project, "overlay", tmp_path)
    load(project)
    decision = {"key": "training.epochs", "value": 7, "agent": "tuner", "reason": "it was better"}
    write_yaml(shared / "nutrition.yaml", {"decisions": [decision]})
    assert load(project).step("adapter", "nutrition").recipe["training"]["epochs"] == 7


def test_links_that_lead_in_a_circle_are_no_fault(project: Path) -> None:
    before = load(project)
    (project / "conf" / "domain" / "again").symlink_to("..")
    (project / "conf" / "all").symlink_to("/")
    (project / "conf" / "me").symlink_to("me")
    assert load(project).steps == before.steps


# What editors and systems leave


@pytest.mark.parametrize(
    "name",
    [".#nutrition.yaml", "._nutrition.yaml", ".nutrition.yaml.swp", "nutrition.yaml~", "#n.yaml#"],
)
@pytest.mark.parametrize("group", ["domain", "base", "hardware", "overlay", "provider", "safety"])
def test_files_of_editors_and_of_macos_are_not_read(project: Path, group: str, name: str) -> None:
    before = Configuration(project).resolve("nutrition")
    (project / "conf" / group).mkdir(exist_ok=True)
    path = project / "conf" / group / name
    if name.startswith(".#"):
        path.symlink_to("anna@desk.4711:1690000000")  # as Emacs marks a file that is being edited
    else:
        path.write_bytes(b"\0\5\x16\7")
    assert Configuration(project).resolve("nutrition") == before
    assert name not in list_group(project / "conf", group)


# What would be read for ever


def test_a_pipe_among_the_domains_is_refused_at_once(project: Path) -> None:
    os.mkfifo(project / "conf" / "domain" / "pipe.yaml")
    with pytest.raises(
        ConfigError,
        match=r"domain/pipe\.yaml: cannot be read \(no regular file\); put a file in its place",
    ):
        load(project)


@pytest.mark.parametrize("kind", ["pipe", "device", "pipe in a folder"])
def test_a_source_that_would_be_read_for_ever_is_refused_at_once(
    project: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "endless"
    if kind == "device":
        path.symlink_to("/dev/zero")
    else:
        (path if "folder" in kind else tmp_path / "beside").mkdir()
        os.mkfifo(path / "inner" if "folder" in kind else path)
    edit(project / "conf" / "domain" / "nutrition.yaml", "sources", [{"path": str(path)}])
    with pytest.raises(ConfigError) as fault:
        load(project)
    assert f"conf/domain/nutrition.yaml: sources: '{path}' leads to {path}" in str(fault.value)
    assert str(fault.value).endswith("no regular file; name a file, or a folder of data alone")


def test_a_folder_that_was_named_by_mistake_is_refused_at_once(project: Path) -> None:
    for key, path in (("sources", "domain/nutrition.yaml"), ("folder", "base/mini.yaml")):
        before = read_yaml(project / "conf" / path)
        huge = (
            {**before, "sources": [{"path": "/"}]}
            if key == "sources"
            else {
                "description": "x",
                "licence": "mit",
                "chat_template": "chatml",
                "parameters": 1,
                "folder": "/",
            }
        )
        write_yaml(project / "conf" / path, huge)
        with pytest.raises(
            ConfigError,
            match=rf"{path}: {key}: '/' leads to .*; name a file, or a folder of data alone",
        ):
            load(project)
        write_yaml(project / "conf" / path, before)
