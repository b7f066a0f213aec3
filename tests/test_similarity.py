"""Domains are alike if they are trained on the same words."""

import json
from pathlib import Path

import pytest
from projects import small_project

from meetara_build.errors import ConfigError
from meetara_build.graph import Graph, load
from meetara_build.similarity import similar_domains


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return load(
        small_project(
            tmp_path_factory.mktemp("similar") / "project", ("nutrition", "mental_health", "programming", "fitness")
        )
    )


def test_the_most_similar_comes_first(graph: Graph) -> None:
    found = similar_domains(graph, "nutrition")
    assert found[0].domain == "fitness"
    assert found[-1].domain == "programming"
    assert [one.similarity for one in found] == sorted((one.similarity for one in found), reverse=True)
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
