"""A command works in the project around it, and a path in conf/ means the same from wherever it is
read."""

from pathlib import Path

import pytest

from meetara_build.errors import ConfigError
from meetara_build.project import expand_path, find_project, locate


def test_the_project_is_this_folder_or_the_nearest_above(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "inner"):
        (folder / "conf").mkdir(parents=True)
        (folder / "conf" / "build.yaml").touch()
    deep = tmp_path / "inner" / "conf" / "domain"
    deep.mkdir()
    assert find_project(deep) == (tmp_path / "inner").resolve()
    assert find_project(tmp_path) == tmp_path.resolve()


def test_outside_of_every_project_it_is_said_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no conf/build.yaml here or above; .*`meetara-build init NAME`"
    ):
        find_project(tmp_path)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("data/x", "/project/data/x"), ("/data/x", "/data/x"), ("~/x", "/home/me/x")],
)
def test_a_path_is_from_the_project_from_home_or_absolute(
    written: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert expand_path(Path("/project"), written) == Path(expected)


def test_a_link_on_the_way_is_followed_where_it_leads_now(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    assert locate(tmp_path, "link/artifacts") == (tmp_path / "disk" / "artifacts").resolve()
    assert expand_path(tmp_path, "link/artifacts") == tmp_path / "link" / "artifacts"
