"""The bundle stage: one folder with a base and adapters, all of whose paths hold within it."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from projects import build_here, copy_built, write_yaml

from meetara_build.errors import GateError
from meetara_build.graph import Graph
from meetara_build.llama_cpp.model import Model
from meetara_build.stages import bundle
from meetara_build.stages.package.modelfile import modelfile
from meetara_build.stages.recipes.bundle import BundleRecipe, MemberRecipe
from meetara_build.store import content

KITCHEN, ENGINE, SICK = "kitchen", "engine", "sick"
SAID = {
    KITCHEN: [("How long do eggs boil?", "Ten minutes in hot water."), ("Salt the soup?", "Late.")],
    ENGINE: [("Why does the piston knock?", "The fuel burns early."), ("Which oil?", "Thin oil.")],
    SICK: [("Is it the flu?", "Ask a doctor.")],
}
REFUSAL = (
    "sick: not packaged:\n  F16: 1 of 6 answers: makes up a dose\n    asked: How much?\n"
    "    said: 900 pills\nTrain it longer"
)
LORA_USE = (
    "`llama-cli -m ../../base/tiny/quantized/tiny-Q4_K_M.gguf --lora ../gguf/{0}-lora.gguf` with "
    "llama.cpp."
)
CARD = f"""---
license: mit
---

# {{0}}

About it.

## Use

```
ollama create {{0}} -f Modelfile && ollama run {{0}}
```

or {LORA_USE}

## Figures

Of {{0}}.
"""


def member(name: str, **changes: Any) -> MemberRecipe:
    said = {
        "category": "home",
        "description": f"All of the {name}",
        "languages": ["en"],
        "system_prompt": f"You know the {name}.",
        "quants": ["F16", "Q8_0", "Q4_K_M"],
        "files": "lora",
    }
    return MemberRecipe.model_validate({**said, **changes})


def recipe(*names: str, **changes: Any) -> BundleRecipe:
    said = {
        "name": "house",
        "description": "A house",
        "members": sorted(names),
        "quants": ["F16", "Q4_K_M"],
        "base": "tiny",
        "base_origin": "made by this build",
        "base_file": None,
        "licence": "apache-2.0",
        "domains": {name: member(name) for name in names},
    }
    return BundleRecipe.model_validate({**said, **changes})


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """A base and three domains, of which one is held back."""
    root, found = tmp_path / "artifacts", dict[str, Path]()
    for name, kind in (("base_gguf", "F16"), ("quantized", "Q4_K_M")):
        found[name] = root / "base" / "tiny" / name
        write(found[name] / f"tiny-{kind}.gguf", f"base as {kind}")
    for name, pairs in SAID.items():
        for stage in ("gguf", "package", "dataset"):
            found[f"{name}/{stage}"] = root / name / stage
        write(found[f"{name}/gguf"] / f"{name}-lora.gguf", f"adapter of {name}")
        lines = [
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": asked},
                    {"role": "assistant", "content": said},
                ]
            }
            for asked, said in pairs
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write(found[f"{name}/dataset"] / "train.jsonl", text)
        package, refusal = found[f"{name}/package"], None
        write(package / "README.md", CARD.format(name))
        if name == SICK:
            refusal = {"code": "gate-answers", "message": REFUSAL}
        else:
            files = f"../../base/tiny/x.gguf\nADAPTER ../gguf/{name}-lora.gguf"
            write(package / "Modelfile", f'FROM {files}\nTEMPLATE """{{{{ .Prompt }}}}"""\n')
        write(package / "verdict.json", json.dumps({"held_back": refusal}))
    return found


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def make(folder: Path, inputs: Mapping[str, Path], *names: str, **changes: Any) -> Path:
    folder.mkdir()
    bundle.run(recipe(*(names or (KITCHEN, ENGINE)), **changes), inputs, folder)
    return folder


def index(made: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made / "index.json").read_text(encoding="utf-8"))
    return found


def test_the_base_lies_there_once_and_the_adapters_beside_it(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    made = make(tmp_path / "house", inputs)
    assert sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()) == [
        "LICENSE-base",
        "README.md",
        "SHA256SUMS",
        "adapters/engine-lora.gguf",
        "adapters/kitchen-lora.gguf",
        "base/tiny-F16.gguf",
        "base/tiny-Q4_K_M.gguf",
        "domains/engine/Modelfile",
        "domains/engine/README.md",
        "domains/kitchen/Modelfile",
        "domains/kitchen/README.md",
        "index.json",
        "llama-server.ini",
        "router.json",
    ]


def test_large_files_are_no_copies(inputs: dict[str, Path], tmp_path: Path) -> None:
    made = make(tmp_path / "house", inputs)
    given = inputs["quantized"] / "tiny-Q4_K_M.gguf"
    assert (made / "base" / "tiny-Q4_K_M.gguf").samefile(given)
    assert (made / "adapters" / "kitchen-lora.gguf").samefile(
        inputs["kitchen/gguf"] / "kitchen-lora.gguf"
    )


def test_where_the_file_system_makes_no_links_it_says_so_and_copies(
    inputs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(content, "_clone", lambda *_: False)
    made = make(tmp_path / "house", inputs)
    assert (made / "base" / "tiny-F16.gguf").read_text() == "base as F16"
    assert "bundle house: 4 of 4 files are copies, 0 MB more on the disk" in capsys.readouterr().out


def test_every_file_is_in_the_checksums(inputs: dict[str, Path], tmp_path: Path) -> None:
    made = make(tmp_path / "house", inputs)
    sums = dict(line.split("  ")[::-1] for line in (made / "SHA256SUMS").read_text().splitlines())
    files = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert set(sums) == files - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == digest


def test_a_modelfile_and_a_card_name_the_bundle_s_own_files(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    made = make(tmp_path / "house", inputs)
    folder = made / "domains" / "kitchen"
    text = (folder / "Modelfile").read_text()
    named = re.findall(r"^(?:FROM|ADAPTER) (.+)$", text, re.MULTILINE)
    assert [(folder / name).resolve().relative_to(made.resolve()) for name in named] == [
        Path("base/tiny-Q4_K_M.gguf"),
        Path("adapters/kitchen-lora.gguf"),
    ]
    assert all((folder / name).is_file() for name in named)
    assert text.endswith('TEMPLATE """{{ .Prompt }}"""\n')
    card = (folder / "README.md").read_text()
    command = re.search(r"llama-cli -m (\S+) --lora ([^`]+)`", card)
    assert command is not None
    assert all((folder / name).is_file() for name in command.groups())
    assert card.startswith("---\nlicense: mit")
    assert card.endswith("## Figures\n\nOf kitchen.\n")


def test_a_domain_without_a_modelfile_is_there_all_the_same(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Ollama cannot be told every chat template."""
    (inputs["kitchen/package"] / "Modelfile").unlink()
    made = make(tmp_path / "house", inputs)
    found = index(made)["domains"]
    assert found["kitchen"]["modelfile"] is None
    assert (made / found["engine"]["modelfile"]).is_file()
    assert not (made / "domains" / "kitchen" / "Modelfile").exists()
    assert "ollama create engine" in (made / "README.md").read_text()


def test_a_domain_is_used_on_a_type_that_it_was_judged_on(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Its own last type may not be in the bundle."""
    judged = {KITCHEN: member(KITCHEN, quants=["F16", "Q8_0"]), ENGINE: member(ENGINE)}
    found = index(make(tmp_path / "house", inputs, domains=judged))["domains"]
    assert found["kitchen"]["model"] == "base/tiny-F16.gguf"
    assert found["engine"]["model"] == "base/tiny-Q4_K_M.gguf"


def test_it_is_said_where_whole_models_were_judged(inputs: dict[str, Path], tmp_path: Path) -> None:
    both = {KITCHEN: member(KITCHEN, files="both"), ENGINE: member(ENGINE)}
    whole = CARD.replace(LORA_USE, "open `../gguf/{0}-Q4_K_M.gguf` in llama.cpp or LM Studio.")
    write(inputs["kitchen/package"] / "README.md", whole.format(KITCHEN))
    made = make(tmp_path / "house", inputs, domains=both)
    cards = {name: (made / f"domains/{name}/README.md").read_text() for name in both}
    assert "figures below are those of whole models" in cards[KITCHEN]
    assert "../gguf/" not in cards[KITCHEN]
    assert "figures below are those of whole models" not in cards[ENGINE]
    judged = {name: one["judged_as"] for name, one in index(made)["domains"].items()}
    assert judged == {KITCHEN: "merged", ENGINE: "adapter"}


def test_the_index_has_base_domains_files_and_digests(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    made = make(tmp_path / "house", inputs)
    found = index(made)
    assert (found["name"], found["description"]) == ("house", "A house")
    assert found["base"]["licence"] == "apache-2.0"
    assert (made / found["base"]["licence_file"]).is_file()
    assert list(found["base"]["files"]) == ["F16", "Q4_K_M"]
    kitchen = found["domains"]["kitchen"]
    assert kitchen["category"] == "home"
    assert kitchen["system_prompt"] == "You know the kitchen."
    for one in (*found["base"]["files"].values(), kitchen["adapter"]):
        path = made / one["file"]
        assert path.stat().st_size == one["size"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == one["sha256"]
    assert all((made / kitchen[key]).is_file() for key in ("model", "modelfile", "card"))
    assert (made / found["server"]).is_file()
    assert (made / found["router"]).is_file()


# Held back


def test_a_domain_that_is_held_back_is_left_out_and_named_with_the_reason(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    made = make(tmp_path / "house", inputs, KITCHEN, SICK)
    found = index(made)
    assert list(found["domains"]) == ["kitchen"]
    assert found["held_back"] == {
        "sick": {"code": "gate-answers", "reasons": ["F16: 1 of 6 answers: makes up a dose"]}
    }
    assert not list(made.rglob("*sick*"))
    assert "- sick: F16: 1 of 6 answers: makes up a dose" in (made / "README.md").read_text()


def test_no_answer_that_was_found_wrong_is_handed_on(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    made = make(tmp_path / "house", inputs, KITCHEN, SICK)
    small = [path for path in made.rglob("*") if path.is_file() and path.suffix != ".gguf"]
    assert not [path for path in small if "900 pills" in path.read_text(encoding="utf-8")]


def test_a_bundle_of_which_no_domain_is_left_is_refused(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(GateError, match="bundle house: no domain is left, for sick are held back"):
        make(tmp_path / "house", inputs, SICK)


# llama-server


def test_llama_server_has_a_model_of_each_domain_s_name(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    """In the form that llama.cpp's common/preset.cpp parses: sections, and options by their long
    names."""
    made = make(tmp_path / "house", inputs)
    lines = (made / "llama-server.ini").read_text().splitlines()
    assert all(re.fullmatch(r"|;.*|\[\w+\]|[a-z]+ = [\w./-]+", line) for line in lines)
    kitchen = lines.index("[kitchen]")
    options = dict(line.split(" = ") for line in lines[kitchen + 1 : kitchen + 3])
    assert set(options) == {"model", "lora"}
    assert all((made / path).is_file() for path in options.values())
    assert "[engine]" in lines


# The licence


def test_a_licence_that_asks_for_it_is_there_in_full(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    text = (make(tmp_path / "house", inputs) / "LICENSE-base").read_text()
    assert "The base tiny (made by this build) is licensed under apache-2.0." in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_of_another_licence_it_is_said_where_its_text_is(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    made = make(tmp_path / "house", inputs, licence="gemma", base_origin="google/gemma-2-2b-it")
    text = (made / "LICENSE-base").read_text()
    assert "(google/gemma-2-2b-it) is licensed under gemma" in text
    assert "take it from where the base is from" in text


# The router


def route(router: Mapping[str, Any], question: str) -> list[str]:
    """As its description has it, with nothing else of this package."""
    words = Counter(re.findall(router["pattern"], question.lower()))
    weights = {
        word: (1 + math.log(times)) * router["words"].get(word, 0.0)
        for word, times in words.items()
    }

    def likeness(domain: str) -> float:
        return sum(weights.get(word, 0.0) * one for word, one in router["domains"][domain].items())

    return sorted(router["domains"], key=likeness, reverse=True)


def test_a_question_finds_its_domain_without_the_records(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    router = json.loads((make(tmp_path / "house", inputs) / "router.json").read_text("utf-8"))
    assert route(router, "My soup: when to salt it?")[0] == "kitchen"
    assert route(router, "A piston, and OIL")[0] == "engine"
    for weights in router["domains"].values():
        assert math.isclose(math.hypot(*weights.values()), 1.0, abs_tol=1e-3)


def test_words_of_every_script_are_whole(tmp_path: Path) -> None:
    router = bundle.make_router({"a": ["x", "कैसे पकाएँ?"], "b": ["y", "¿Qué aceite?"]})
    assert {"कैसे", "पकाएँ"} <= set(router["domains"]["a"])
    assert {"qué", "aceite"} <= set(router["domains"]["b"])


# All of it, as a build makes it


@pytest.fixture(scope="module")
def bundled(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """A real build of three domains, and a bundle of two of them."""
    project = copy_built(built_project, tmp_path_factory.mktemp("bundled") / "project")
    content = {"description": "Two", "domains": ["nutrition", "storytelling"], "quants": "all"}
    write_yaml(project / "conf" / "bundle" / "two.yaml", content)
    return build_here(project, ["bundle/two"])


def test_a_built_bundle_takes_no_room_for_its_models(bundled: Graph) -> None:
    made = bundled.root / "bundle" / "two"
    models = [path.stat().st_ino for path in made.rglob("*.gguf")]
    others = {
        path.stat().st_ino
        for place in (bundled.root / "base", *(bundled.root / name for name in bundled.domains))
        for path in place.rglob("*.gguf")
    }
    assert models
    assert set(models) <= others


def test_a_bundle_that_is_taken_along_runs(bundled: Graph, tmp_path: Path) -> None:
    """Its paths hold within it: copied elsewhere, each domain's adapter changes what its model
    says."""
    made = tmp_path / "elsewhere"
    shutil.copytree(bundled.root / "bundle" / "two", made)
    for about in index(made)["domains"].values():
        with Model(made / about["model"]) as model:
            ids = model.tokenize("How much salt?")
            with model.session(64, threads=1) as session:
                plain = session.logits(ids)
            with model.session(64, threads=1) as session:
                session.apply(made / about["adapter"]["file"], 1.0)
                adapted = session.logits(ids)
        assert abs(plain - adapted).max() > 0


def test_its_modelfile_is_the_one_that_the_base_s_template_gives(bundled: Graph) -> None:
    made = bundled.root / "bundle" / "two"
    about = index(made)["domains"]["nutrition"]
    base = bundled.root / "base" / "mini" / "model"
    files = [f"../../{about['model']}", f"../../{about['adapter']['file']}"]
    assert (made / about["modelfile"]).read_text() == modelfile(
        about["system_prompt"], files[0], base, made / about["model"], files[1]
    )
