"""Reading YAML as people write it: numbers, lines for messages, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meetara_build.errors import ConfigError
from meetara_build.yaml_files import read_lines, read_yaml


def refused(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as fault:
        read_yaml(path)
    return str(fault.value)


@pytest.mark.parametrize("written", ["1e-3", "1.0e-3", "1E-3", "0.001", "+1e-3"])
def test_a_small_number_is_a_number_however_it_is_written(tmp_path: Path, written: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"rate: {written}\n")
    assert read_yaml(path) == {"rate": 0.001}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file; create it"):
        read_yaml(tmp_path / "gone.yaml")


def test_a_syntax_error_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    assert refused(path, "a: 1\nb: c: d\n").startswith(f"{path}:2: not valid YAML")
    assert refused(path, "a: 1\nb: [1, 2\n").startswith(f"{path}:3: not valid YAML")


def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    assert refused(path, "a: 1\nb:\n  c: 2\n  c: 3\n") == f"{path}:4: key 'c' stands twice; keep one of them"


@pytest.mark.parametrize("content", ["", "# nothing\n", "- a\n- b\n", "just words\n", "3\n"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    assert "expected `key: value` lines" in refused(tmp_path / "x.yaml", content)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    assert "save it as UTF-8" in refused(tmp_path / "x.yaml", "description: café\n".encode("latin-1"))


def test_a_list_as_a_key_and_an_anchor_within_itself_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    assert "cannot be a key" in refused(path, "? [a, b]\n: 1\n")
    assert "refers to itself" in refused(path, "a: &x [1, *x]\n")


def test_an_anchor_may_be_used_again(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: &x [1, 2]\nb: *x\n")
    assert read_yaml(path) == {"a": [1, 2], "b": [1, 2]}


def test_every_key_and_item_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("# first\na: 1\nb:\n  - c: 2\n  - d\n")
    assert read_lines(path) == {("a",): 2, ("b",): 3, ("b", 0): 4, ("b", 0, "c"): 4, ("b", 1): 5}


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_the_file_s_name(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        assert isinstance(read_yaml(path), dict)
    except ConfigError as fault:
        assert str(fault).startswith(str(path))  # noqa: PT017
