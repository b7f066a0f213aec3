"""README and docs/ are true: every command in them runs and says what they say, and every file they
name is there.

A test is a section of a page, in a built project of its own, so that a failure names the place.
What a ``console`` block shows is compared: numbers may be others, ``…`` stands for anything, alone
on a line for any lines. Commands that no test runs are those of the table in docs/limits.md.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from projects import REPOSITORY, copy_built

from bench.result_files import read_result
from meetara_build.config.schema import Base, Build, Bundle, Domain, Hardware

GENERATED = ("figures.md", "configuration.md", "commands.md")
"""Pages that scripts write: tests/test_figures.py and tests/test_reference.py hold them."""
PAGES = [
    REPOSITORY / "README.md",
    *sorted(path for path in (REPOSITORY / "docs").rglob("*.md") if path.name not in GENERATED),
]
EVERY_PAGE = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
PROGRAMS = ("meetara-build", "snakemake", "make", "pip", "npx", "npm", "chgrp")
SHORTER = {"--trials 20": "--trials 2", "--rounds 3": "--rounds 1", "diff 1 2": "diff 1 1"}
"""What a test has no time for, or a small project not enough builds."""
FILES = {"build": Build, "domain": Domain, "base": Base, "hardware": Hardware, "bundle": Bundle}
"""Shapes by the folder, or the name, of a file below conf/."""
LARGEST_README = 8 * 1024


class Code(NamedTuple):
    """A piece of code: its language (``inline`` within a sentence, or a line of a block of
    commands), and its text."""

    language: str
    text: str


class Section(NamedTuple):
    """What stands below a heading, up to the next."""

    page: str
    title: str
    code: tuple[Code, ...]


def read_sections(path: Path) -> Iterator[Section]:
    """The sections of a page that hold code, in order."""
    page, title, code = str(path.relative_to(REPOSITORY)), "", list[Code]()
    pieces = re.split(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for number in range(0, len(pieces), 3):
        for line in pieces[number].splitlines():
            if heading := re.match(r"#+ (.+)", line):
                yield Section(page, title, tuple(code))
                title, code = heading[1], []
            code += [Code("inline", text) for text in re.findall(r"`([^`]+)`", line)]
        language, block = [*pieces[number + 1 : number + 3], "", ""][:2]
        if language == "sh":
            lines = [re.sub(r"  +#.*", "", line) for line in block.splitlines()]
            assert all(line.split(" ")[0] in PROGRAMS for line in lines), block
            code += [Code("inline", line) for line in lines]
        elif block:
            code.append(Code(language, block))
    yield Section(page, title, tuple(code))


SECTIONS = [section for path in PAGES for section in read_sections(path)]


def read_not_run() -> dict[str, str]:
    """Patterns of commands that no test runs, each with the reason."""
    text = (REPOSITORY / "docs" / "limits.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.M))


NOT_RUN = read_not_run()


def is_not_run(command: str) -> bool:
    """Whether a command is in the table."""
    return any(fnmatchcase(command, pattern.replace("…", "*")) for pattern in NOT_RUN)


def commands_of(section: Section) -> list[str]:
    """Commands within sentences, and those of blocks that show no output; a program alone is
    none."""
    if section.page == "docs/limits.md":
        return []
    inline = [code.text for code in section.code if code.language == "inline"]
    return [word for word in inline if word.split(" ")[0] in PROGRAMS and " " in word]


FIRST = {word: section for section in reversed(SECTIONS) for word in commands_of(section)}
"""Every command by the section that has it first: it is run there alone."""


def to_run(section: Section) -> list[Code]:
    """What a test does for a section, in its order: blocks with output, agents, and commands that
    are not run before."""
    found = []
    for code in section.code:
        inline = code.language == "inline" and code.text in commands_of(section)
        if code.language in ("console", "python") or (
            inline and not is_not_run(code.text) and FIRST[code.text] == section
        ):
            found.append(code)
    return found


TO_RUN = [section for section in SECTIONS if to_run(section)]


class Project:
    """A built project in which the names of the pages mean something."""

    def __init__(self, folder: Path, warm_folder: Path) -> None:
        self.folder = folder
        shutil.copytree(REPOSITORY / "conf" / "bundle", folder / "conf" / "bundle")
        tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {
            **os.environ,
            "PATH": tools,
            "TMPDIR": str(warm_folder),
            "XDG_CONFIG_HOME": str(folder.parent / "config"),
        }
        rows = (REPOSITORY / "conf" / "domain" / "sleep.jsonl").read_text("utf-8").splitlines()
        pairs = [json.loads(row) for row in rows if '\\"' not in row and "\\n" not in row]
        lines = [f'"{pair["prompt"]}","{pair["response"]}"' for pair in pairs]
        (folder / "my.csv").write_text("\n".join(["question,answer", *lines, ""]), "utf-8")

    def run(self, command: str) -> str:
        """What a command prints, in a shell.

        Raises:
            AssertionError: it failed.
        """
        for much, little in SHORTER.items():
            command = command.replace(much, little)
        if command.startswith("snakemake") and "--report" not in command:
            command += " -n"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        asks = "--detailed-exitcode" in command
        assert done.returncode == 0 or (asks and done.returncode == 2), (
            f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
        return done.stdout + done.stderr

    def follow(self, block: str) -> None:
        """Run a block's commands, each with the output that the block shows after it."""
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, shown = part.partition("\n")
            said = self.run(command)
            assert re.fullmatch(expected(shown), said.rstrip()), f"{command}\n{said}"


def expected(shown: str) -> str:
    """A pattern of an output: other numbers, and anything for ``…``; where nothing is shown,
    anything too."""
    if not shown.strip():
        return r"[\s\S]*"
    lines = []
    for line in shown.rstrip().splitlines():
        if line == "…":
            lines.append(r"(?:.*\n)*?.*")
            continue
        pattern = re.sub(r"\d[\d.,]*", lambda _: r"\d[\d.,]*", re.escape(line).replace(r"\.", "."))
        lines.append(pattern.replace("…", ".*"))
    return "\n".join(lines)


@pytest.mark.parametrize("section", TO_RUN, ids=lambda one: f"{one.page}: {one.title}")
def test_the_commands_of_a_section_run_in_its_order(
    section: Section, built_project: Path, tmp_path: Path, warm_folder: Path
) -> None:
    project = Project(copy_built(built_project, tmp_path / "project"), warm_folder)
    for code in to_run(section):
        if code.language == "console":
            project.follow(code.text)
        elif code.language == "python":
            (project.folder / "plugins" / "longer.py").write_text(code.text, encoding="utf-8")
        else:
            project.run(code.text)
    if (project.folder / "report.html").exists():
        assert "loss_curves" in (project.folder / "report.html").read_text(encoding="utf-8")


def test_there_are_commands_to_try() -> None:
    assert sum(len(to_run(section)) for section in TO_RUN) > 35


def test_every_reason_not_to_run_a_command_is_needed() -> None:
    commands = [word for section in SECTIONS for word in commands_of(section)]
    for pattern in NOT_RUN:
        assert any(fnmatchcase(word, pattern.replace("…", "*")) for word in commands), pattern


def test_output_is_compared_but_for_numbers_and_what_is_left_out() -> None:
    assert re.fullmatch(expected("a 12.5 s of …\n…\nend"), "a 3 s of b\nmore\nand more\nend")
    assert not re.fullmatch(expected("a 12.5 s"), "b 12.5 s")
    assert not re.fullmatch(expected("a\nend"), "a\nmore\nend")


@pytest.mark.parametrize("path", EVERY_PAGE, ids=lambda path: path.name)
def test_every_file_and_heading_it_links_to_is_there(path: Path) -> None:
    for name, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([\w-]+))?\)", path.read_text("utf-8")):
        target = path.parent / name if name else path
        assert target.exists(), name
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.M)
            found = {re.sub(r"[^\w -]", "", one).lower().replace(" ", "-") for one in headings}
            assert anchor in found, f"{name}#{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_configuration_in_it_has_keys_that_exist(path: Path) -> None:
    for section in read_sections(path):
        for text in [code.text for code in section.code if code.language == "yaml"]:
            file = re.search(r"^# conf/(\w+)", text, re.M)
            assert file, f"a comment names the file: {text}"
            content = yaml.safe_load(text)
            if text.startswith("# @package _global_"):
                own = content.pop(file[1])
                assert set(content) <= {*Build.model_fields, "defaults"}
                content = own
            assert set(content) <= set(FILES[file[1]].model_fields)
        for text in [code.text for code in section.code if code.language == "json"]:
            json.loads(text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_figure_in_it_is_typed_by_hand(path: Path) -> None:
    text = re.sub(r"^```.*?^```$|`[^`]+`", "", path.read_text("utf-8"), flags=re.M | re.S)
    measured = r"\d[\d.,]* ?(?:%|times\b|CPU|min\b|ms\b|s\b|[GM]B\b)"
    assert re.findall(measured, text) == [], "put it into docs/figures.md"


def test_the_readme_is_a_page() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= LARGEST_README
    assert not re.search(r"^###", text, re.M)
    [section] = [one for one in SECTIONS if (one.page, one.title) == ("README.md", "I want to…")]
    assert text.partition("## I want to…")[2].partition("\n## ")[0].count("\n| ") == 11
    assert len(section.code) >= 10


def test_what_the_readme_shows_of_the_demo_is_what_it_said() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"<!-- bench/results/demo.json -->\n```\n(.*?)```", text, re.S)
    said = read_result("demo")["output"]
    first = said.index(shown.splitlines()[0])
    for line, full in zip(shown.splitlines(), said[first:], strict=True):
        assert full.startswith(line.removesuffix("…"))


def test_the_make_targets_that_pages_name_are_in_the_makefile() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    commands = {shlex.split(word)[1] for word in FIRST if word.startswith("make ")}
    assert {"demo", "test"} <= commands
    for target in commands - {"…"}:
        assert re.search(rf"^{target}:", makefile, re.M), target


HOUSE = re.findall(
    r"^\| (.+\?) \| \[([\w/.]+)\]\(\.\./.+?\)(?:, [^|]+)? \| `(\w+)` \|$",
    (REPOSITORY / "docs" / "house.md").read_text(encoding="utf-8"),
    re.M,
)


def test_a_stranger_has_ten_questions() -> None:
    assert len(HOUSE) == 10


@pytest.mark.parametrize(("question", "file", "name"), HOUSE)
def test_each_is_answered_by_a_file_that_holds_the_name(
    question: str, file: str, name: str
) -> None:
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    if file.endswith(".yaml"):
        assert name in yaml.safe_load(text)
        return
    defined = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        for target in node.targets if isinstance(node, ast.Assign) else ():
            defined.add(ast.unparse(target))
        if isinstance(node, ast.AnnAssign):
            defined.add(ast.unparse(node.target))
    assert name in defined, question


def test_the_house_names_every_room() -> None:
    text = (REPOSITORY / "docs" / "house.md").read_text(encoding="utf-8")
    rooms = re.findall(r"`(\w+)`", text.partition("## Rooms")[2].partition("\nNever:")[0])
    found = {path.stem for path in (REPOSITORY / "meetara_build").iterdir()}
    assert {name for name in found if not name.startswith("_") and name != "project"} <= set(rooms)
    assert set(rooms) - {"kernels"} <= found
