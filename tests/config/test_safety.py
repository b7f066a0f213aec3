"""conf/safety/: reviewed lists by language; a language is a file, and what is wrong in one is told
with its line."""

import shutil
from pathlib import Path

import pytest
from projects import REPOSITORY, edit, read_yaml, write_yaml

from meetara_build.config.safety import read_safety
from meetara_build.config.schema import Safety
from meetara_build.errors import ConfigError

SHIPPED = REPOSITORY / "conf" / "safety"


@pytest.fixture
def english(tmp_path: Path) -> Path:
    shutil.copytree(SHIPPED, tmp_path / "conf" / "safety")
    return tmp_path / "conf" / "safety" / "en.yaml"


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as fault:
        read_safety(path.parents[2])
    return str(fault.value)


def test_every_language_of_a_shipped_domain_has_its_lists() -> None:
    languages = {
        language
        for path in (REPOSITORY / "conf" / "domain").glob("*.yaml")
        for language in read_yaml(path)["languages"]
    }
    assert set(read_safety(REPOSITORY)) == languages


def test_a_project_without_the_folder_has_no_lists(tmp_path: Path) -> None:
    assert read_safety(tmp_path) == {}


def test_a_language_is_a_file(english: Path) -> None:
    shutil.copy(english, english.with_name("fr.yaml"))
    assert set(read_safety(english.parents[2])) == {"en", "es", "fr", "hi"}


def test_an_unknown_key_is_told_with_its_line_and_the_nearest(english: Path) -> None:
    edit(english, "emergencies", {"FR": ["15"]})
    said = refused(english)
    assert said.startswith(f"{english}:")
    assert "unknown key 'emergencies'; did you mean 'emergency'?" in said


def test_a_number_without_quotes_is_refused_before_it_loses_its_zero(english: Path) -> None:
    content = read_yaml(english)
    content["emergency"]["AU"] = [0, 112]
    write_yaml(english, content)
    assert "emergency.AU.0: should be a valid string, not 0" in refused(english)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("emergency", {"Germany": ["112"]}, "emergency.Germany"),
        ("emergency", {"DE": ["one one two"]}, "a number's digits, in quotes"),
        ("emergency", {"DE": []}, "needs at least one entry"),
        ("turn_to", {"docter": ["doctor"]}, "did you mean 'doctor'?"),
        ("units", {"milligram": ["mg"]}, "units.milligram"),
        ("numbers", {"one": "1"}, "numbers.one"),
        ("call", [True], "call.0: should be a valid string, not True"),
    ],
)
def test_a_fault_names_its_place_and_what_should_stand_there(
    english: Path, key: str, value: object, said: str
) -> None:
    edit(english, key, value)
    message = refused(english)
    assert said in message
    assert "\n" not in message


def test_shipped_lists_say_when_and_from_where_they_are() -> None:
    for path in SHIPPED.glob("*.yaml"):
        content = read_yaml(path)
        assert content["as_of"]
        assert content["source"]
        assert set(content) <= set(Safety.model_fields)
