"""Reading YAML as people write it: numbers, lines for messages, and what is refused."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meetara_build.config.yaml_files import parse_yaml, read_lines, read_yaml, render_yaml
from meetara_build.errors import ConfigError


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
    assert (
        refused(path, "a: 1\nb:\n  c: 2\n  c: 3\n")
        == f"{path}:4: key 'c' stands twice; keep one of them"
    )


@pytest.mark.parametrize("content", ["", "# nothing\n", "- a\n- b\n", "just words\n", "3\n"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    assert "expected `key: value` lines" in refused(tmp_path / "x.yaml", content)


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    assert "save it as UTF-8" in refused(
        tmp_path / "x.yaml", "description: café\n".encode("latin-1")
    )


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
def test_any_text_is_read_or_refused_with_the_file_s_name(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        assert isinstance(read_yaml(path), dict)
    except ConfigError as fault:
        assert str(fault).startswith(str(path))  # noqa: PT017


# What grows beyond all use


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)


def test_anchors_that_repeat_anchors_are_counted_as_often_as_they_stand_for_something(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.yaml"
    assert refused(path, BOMB) == (
        f"{path}:6: more than 300,000 values, with what anchors repeat; keep data in files that `sources:` names"
    )


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "a:\n" + "- " * 20_000, "{a: " * 200 + "}" * 200]
)
def test_what_is_nested_without_end_is_refused(tmp_path: Path, content: str) -> None:
    assert refused(tmp_path / "x.yaml", content).endswith(
        "has more than 50 levels; write it with fewer"
    )


def test_a_file_of_data_in_the_place_of_configuration_is_refused(tmp_path: Path) -> None:
    assert "has 6 MB, and configuration may have 5" in refused(
        tmp_path / "x.yaml", "# " + "x" * 6_000_000
    )


def test_a_pipe_a_device_and_a_folder_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "device.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("pipe", "device", "folder"):
        with pytest.raises(
            ConfigError,
            match=rf"{name}\.yaml: cannot be read \(no regular file\); put a file in its place",
        ):
            read_yaml(tmp_path / f"{name}.yaml")


@pytest.mark.parametrize(
    "value", ['!!int ""', "!!timestamp x", "2026-13-45", "!!bool maybe", "1" * 5000]
)
def test_a_value_that_means_nothing_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "x.yaml"
    assert refused(path, f"a: {value}\n").startswith(f"{path}: holds a value that cannot be read (")


# Written and read back


LOOK_LIKE_OTHERS = [
    "1234567e89012345",
    "1e3",
    "1_0e3",
    "-1E5",
    "0x1f",
    "1:30",
    "yes",
    "null",
    "~",
    "<<",
    "=",
    "2026-01-01",
    "- a",
    "# a",
    "a\u2028b",
    "\x85",
    "\x00",
    "a\n\n b\n",
    " a ",
    "\ufeff",
    "\u202e",
    "\U0001f600",
    "*a",
    "&a",
    "!!a",
    "%",
    "",
]


@pytest.mark.parametrize("text", LOOK_LIKE_OTHERS)
def test_a_text_stays_a_text_whatever_it_looks_like(text: str) -> None:
    content = {"reason": text, text: [text, {"deep": text}]}
    assert parse_yaml(render_yaml(content, "x"), "x") == content


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.from_regex(r"[-+0-9_eE.:x]{1,16}"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_written_is_read_back_the_same(value: Any) -> None:
    read = parse_yaml(render_yaml({"value": value}, "x.yaml"), "x.yaml")["value"]
    assert (read, repr(read)) == (value, repr(value))


@pytest.mark.parametrize("value", ["\ud800", object(), ("a", "b")])
def test_what_cannot_be_said_is_not_written(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^x\.yaml: .*; leave that value out$"):
        render_yaml({"value": value}, "x.yaml")
