"""Public reports about builds, paths, rights, talks and messages, each rebuilt on a small
project."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters, stdio_client
from projects import edit, override, read_yaml, write_yaml

from bench.strangers.campaign import BIN, Place, Said, case, expect, expect_refusal, expect_success
from bench.strangers.inputs import DOMAIN, add, pairs, prepare

PLAIN_USERS = (
    ["unshare", "--user", "--map-user=1000", "--map-group=1000"],
    ["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
)
"""Ways to run a command as a user for whom rights count, and who owns what root owns."""


def run_plainly(place: Place, project: Path, *words: str, **environment: str) -> Said:
    """Run ``meetara-build`` as a user who is not root."""
    sealed = place.folder / "sealed"
    sealed.touch(0o444)
    ask = [sys.executable, "-c", f"import os; print(os.access({str(sealed)!r}, os.W_OK))"]
    for start in ([], *PLAIN_USERS):
        if start and not shutil.which(start[0]):
            continue
        if (
            subprocess.run([*start, *ask], capture_output=True, text=True, check=False).stdout
            == "False\n"
        ):
            return place.execute(project, [*start, str(BIN / "meetara-build"), *words], environment)
    raise RuntimeError("nobody here can become a plain user")


def change_description(project: Path, text: str) -> None:
    """The cheapest edit: a package is made anew, and nothing is trained."""
    edit(project / "conf" / "domain" / "nutrition.yaml", "description", text)


def package_text(project: Path, root: Path | None = None) -> str:
    """The model card of the domain that cases build again."""
    return ((root or project / "artifacts") / "nutrition" / "package" / "README.md").read_text(
        encoding="utf-8"
    )


@case(
    "1", "who is not root builds a second time: after an edited key, a new record and a lost file"
)
def second_build(place: Place) -> None:
    project = place.project(built=True)
    (project / "artifacts" / "nutrition" / "gguf" / "nutrition-Q8_0.gguf").unlink()
    change_description(project, "For whoever eats")
    expect_success(run_plainly(place, project, "build", "nutrition"))
    expect("For whoever eats" in package_text(project), package_text(project))
    override(project, "nutrition", {"training.max_steps": 2})
    with (project / "conf" / "domain" / "nutrition.jsonl").open("a", encoding="utf-8") as file:
        record = {
            "prompt": "Is elderflower cordial a drink for every day?",
            "response": "Rather for Sundays: it is sugar.",
        }
        file.write(json.dumps(record) + "\n")
    expect_success(run_plainly(place, project, "build", "nutrition"))
    expect(
        "0 to run" in run_plainly(place, project, "plan", "nutrition").text, "it is not up to date"
    )


@case(
    "4", "a root with spaces, quotes, braces or dollars is built, and nothing is written beside it"
)
def odd_roots(place: Place) -> None:
    for number, root in enumerate(
        ("../My Drive/models", "my builds", "../out {lab} $HOME", '../Ann\'s "own" & more')
    ):
        project = place.folder / f"p{number}" / "project"
        shutil.copytree(place.project(f"copied{number}", built=True), project, symlinks=True)
        target = (project / root).resolve()
        target.parent.mkdir(exist_ok=True)
        (project / "artifacts").rename(target)
        edit(project / "conf" / "build.yaml", "root", root)
        change_description(project, f"Root {number}")
        beside = {*project.parent.iterdir(), *project.iterdir()}
        expect_success(place.run(project, "build", "nutrition"))
        expect(
            f"Root {number}" in package_text(project, target), f"{root}: the package is the old one"
        )
        more = {path.name for path in {*project.parent.iterdir(), *project.iterdir()} - beside}
        expect(more <= {".snakemake", ".meetara", "tmp"}, f"{root}: {more}")


@case(
    "4c",
    "projects and sources with quotes, braces, spaces and umlauts are built, also through a link",
)
def odd_projects(place: Place) -> None:
    project = place.project("Ann's {draft} müll", built=True)
    sources = project / "my {lab} data"
    sources.mkdir()
    odd = sources / "it's 100% #1.jsonl"
    shutil.copyfile(project / "conf" / "domain" / "nutrition.jsonl", odd)
    edit(
        project / "conf" / "domain" / "nutrition.yaml",
        "sources",
        [{"path": f"../../my {{lab}} data/{odd.name}"}],
    )
    change_description(project, "From an odd file")
    (project / "artifacts").rename(project / "lab{v1}")
    edit(project / "conf" / "build.yaml", "root", "lab{v1}")
    expect_success(place.run(project, "build", "nutrition"))
    expect(
        "From an odd file" in package_text(project, project / "lab{v1}"),
        "the package is the old one",
    )
    link = place.folder / "linked"
    link.symlink_to(project)
    expect(
        "0 to run" in place.run(link, "plan", "nutrition").text,
        "not up to date where a link leads to it",
    )


@case("20", "a home that cannot be written stops no build, and doctor says so")
def sealed_home(place: Place) -> None:
    project = place.project(built=True)
    home = place.folder / "home"
    home.mkdir(mode=0o555)
    environment = {"HOME": str(home), "XDG_CACHE_HOME": ""}
    change_description(project, "Built without a home")
    expect_success(run_plainly(place, project, "build", "nutrition", **environment))
    expect("Built without a home" in package_text(project), "the package is the old one")
    told = run_plainly(place, project, "doctor", **environment).text
    expect("cannot be written" in told and "HOME" in told, told)


@case("21", "a terminal that cannot write every character gets what it can, and no error")
def narrow_terminals(place: Place) -> None:
    project = place.project(built=True)
    change_description(project, "Für alle, die essen → 食べる")
    for code in ("latin-1", "cp1252", "ascii"):
        for words in (("plan",), ("data", "check", "nutrition")):
            said = place.run(project, *words, PYTHONIOENCODING=code)
            expect(
                said.code == 0 and "Unicode" not in said.text,
                f"{code} {words}: exit {said.code}: {said.text}",
            )
        path = project / "conf" / "domain" / f"{DOMAIN}.yaml"
        path.unlink(missing_ok=True)
        records = [{"prompt": f"→ {q}", "response": f"{a} 🌱"} for q, a in pairs()]
        source = place.write_lines(place.folder / "grün→.jsonl", records)
        expect_success(add(place, project, source, PYTHONIOENCODING=code))
    doctor = place.run(project, "doctor", PYTHONIOENCODING="ascii")
    expect("unexpected" not in doctor.text and "Traceback" not in doctor.text, doctor.text)


@case("22", "a question longer than the model reads is one message, and a long talk goes on")
def long_questions(place: Place) -> None:
    project = place.project(built=True)
    long = "How many beans does a family of four eat in a winter of snow? " * 400
    expect_refusal(place.run(project, "chat", "nutrition", long), "token", "1024")
    expect_refusal(
        place.run(project, "compare", "nutrition", "base:mini", "--ask", long), "token", "1024"
    )
    asked = [f"{q} {a}" for q, a in pairs(30)]
    words = [str(BIN / "meetara-build"), "chat", "nutrition", "--tokens", "60"]
    said = place.execute(project, words, typed="\n".join([*asked[:20], long, *asked[20:], ""]))
    expect_success(said)
    expect(
        said.out.count("> ") >= 31 and "left out" in said.text and "Traceback" not in said.text,
        said.text,
    )


@case("25", "a system prompt with a line of three quotation marks is read whole by Ollama")
def quotes_in_a_system_prompt(place: Place) -> None:
    project = place.project(built=True)
    prompt = 'Write functions in this way:\n\n"""One line says what it gives back."""\n\nNever without it.\n"""\nEnd.\n"""'
    edit(project / "conf" / "domain" / "nutrition.yaml", "system_prompt", prompt)
    override(project, "nutrition", {"training.max_steps": 2})
    said = place.run(project, "build", "nutrition")
    if said.code:
        expect(
            "system_prompt" in said.text and '"""' in said.text and "Traceback" not in said.text,
            said.text,
        )
        return
    written = (project / "artifacts" / "nutrition" / "package" / "Modelfile").read_text("utf-8")
    quotes = r'{{ "\U00000022\U00000022\U00000022" }}'
    expect("SYSTEM" not in written and prompt.replace('"""', quotes) in written, written)


@case(
    "28",
    "a share of 0 for the test side is refused at once or evaluated otherwise; one for the validation side is fine",
)
def no_held_out_share(place: Place) -> None:
    project = place.project()
    edit(project / "conf" / "build.yaml", "data.test", 0.0)
    said = place.run(project, "plan")
    if said.code:
        expect_refusal(said, "data.test")
    else:
        override(project, "nutrition", {"training.max_steps": 2})
        expect_success(place.run(project, "build", "nutrition"))
    edit(project / "conf" / "build.yaml", "data.test", 0.2)
    edit(project / "conf" / "build.yaml", "data.validation", 0.0)
    expect_success(place.run(project, "plan"))


@case("29", "arguments of MCP tools that look like JSON are taken as the texts they are")
def json_in_texts(place: Place) -> None:
    project = place.project(built=True)
    server = StdioServerParameters(
        command=str(BIN / "meetara-build"),
        args=["context", "serve", "--stdio"],
        cwd=project,
        env={"TMPDIR": str(place.folder)},
    )

    async def talk() -> list[str]:
        refused = []
        async with Client(stdio_client(server)) as client:
            for solution in ('{"batch": 128}', "[1, 2]", "null", "17", "true"):
                given = {
                    "domain": "nutrition",
                    "message": "[out of memory]",
                    "solution": solution,
                    "sender": "me",
                }
                answer: Any = await client.call_tool("report_error", given)
                if answer.is_error:
                    refused.append(f"{solution}: {answer.content[0].text}")
        return refused

    expect(not (refused := anyio.run(talk)), refused)


@case(
    "32",
    "braces, dollars and backslashes in a prompt stay; a bare no, a wrong case and an unknown type get a word; small types are built",
)
def odd_values(place: Place) -> None:
    project = place.project(built=True)
    path = project / "conf" / "domain" / "nutrition.yaml"
    whole = read_yaml(path)
    prompt = r"Weigh {{ all }} of ${it}, ${oc.env:HOME} and C:\new\table; 100 % of {it}."
    write_yaml(path, {**whole, "system_prompt": prompt})
    expect_refusal(place.run(project, "plan", "nutrition"), "system_prompt", r"write `\${`")
    write_yaml(path, {**whole, "system_prompt": prompt.replace("${", r"\${")})
    kept = {chat[0]["content"] for chat in prepare(place, project, "nutrition").chats}
    expect(kept == {prompt}, kept)
    for values, words in (
        ({"quants": ["F16", "q4_k_m"]}, ("Q4_K_M",)),
        ({"quants": ["F16", "MXFP4"]}, ("MXFP4",)),
        ({"languages": [False]}, ("languages", "False")),
    ):
        write_yaml(path, {**whole, **values})
        expect_refusal(place.run(project, "plan", "nutrition"), *words)
    kinds = ["F16", "IQ4_XS", "IQ2_XXS", "TQ1_0", "Q2_K_S"]
    write_yaml(path, {**whole, "quants": kinds})
    edit(project / "conf" / "build.yaml", "evaluation.max_kl", {})
    expect_success(place.run(project, "build", "nutrition"))
    made = {file.name for file in (project / "artifacts" / "nutrition" / "gguf").glob("*.gguf")}
    expect({f"nutrition-{kind}.gguf" for kind in kinds} <= made, made)


LARGE = 40_000
"""Records: as many were not done in minutes where each was compared with each."""


def write_many(place: Place, count: int) -> Path:
    """Many records of words by chance, every twentieth nearly the same as another one."""
    chance = random.Random(3)
    words = [
        "".join(chance.choices("abcdefghiklmnoprstuvwz", k=chance.randint(3, 9)))
        for _ in range(6000)
    ]

    def sentence(length: int) -> str:
        return " ".join(chance.choices(words, k=length)).capitalize()

    records = [{"prompt": f"{sentence(9)}?", "response": f"{sentence(25)}."} for _ in range(count)]
    records[::20] = [
        {**records[at + 1], "response": f"{records[at + 1]['response']} Yes."}
        for at in range(0, count, 20)
    ]
    return place.write_lines(place.folder / "many.jsonl", records)


@case("34", f"near-duplicates of {LARGE:,} records are found in minutes")
def many_records(place: Place) -> None:
    project = place.project(built=True)
    expect_success(add(place, project, write_many(place, LARGE)))
    account = prepare(place, project).faults
    found = sum(entry.get("reason") == "near-duplicate" for entry in account)
    expect(
        LARGE // 20 * 0.95 <= found <= LARGE // 20 * 1.2,
        f"{found} near-duplicates found of {LARGE // 20}",
    )
