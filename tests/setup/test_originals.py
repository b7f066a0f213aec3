"""A base's GGUF file is the one that is pinned, or nothing is made from it."""

import hashlib
import sys
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import errors as hub_errors

from meetara_build.errors import ConfigError, SetupError
from meetara_build.setup.originals import (
    ORIGINAL,
    Original,
    find_original,
    package_file,
    refuse_as_config,
)

CONTENT = b"weights"
PINNED = Original(
    "some_model/model.gguf",
    package="some-model==1.0",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where set-up keeps the file of the package, in an environment of the test's own."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    path = package_file("some-model==1.0", PINNED.file)
    path.parent.mkdir(parents=True)
    return path


def test_a_file_named_by_its_path_is_that_file(tmp_path: Path) -> None:
    assert (
        find_original("mine", Original("x.gguf"), {ORIGINAL: tmp_path / "x.gguf"})
        == tmp_path / "x.gguf"
    )


def test_a_fetched_file_is_taken_if_it_is_the_pinned_one(kept: Path) -> None:
    kept.write_bytes(CONTENT)
    assert find_original("mine", PINNED, {}) == kept


def test_a_package_that_is_not_fetched_is_named_with_the_command_that_fetches_it(
    kept: Path,
) -> None:
    with pytest.raises(
        SetupError,
        match=r"base mine: some-model==1\.0 is not fetched yet; run `meetara-build setup`",
    ):
        find_original("mine", PINNED, {})


def test_another_file_in_its_place_is_refused(kept: Path) -> None:
    kept.write_bytes(b"other weights")
    with pytest.raises(
        SetupError, match=r"is not the file that gguf\.sha256 pins; run `meetara-build setup`"
    ):
        find_original("mine", PINNED, {})


def test_two_versions_of_a_package_lie_side_by_side() -> None:
    assert package_file("a==1", "x.gguf") != package_file("a==2", "x.gguf")


@pytest.mark.parametrize(
    "error",
    [
        hub_errors.RepositoryNotFoundError(
            "404 Client Error\nmore",
            response=httpx2.Response(404, request=httpx2.Request("GET", "https://hub/x")),
        ),
        hub_errors.LocalEntryNotFoundError("no network"),
        OSError("no route to host"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_hub_that_has_no_such_name_or_cannot_be_reached_is_one_message(error: Exception) -> None:
    said = r"base mine: cannot fetch owner/name .*check the name, the commit"
    with pytest.raises(ConfigError, match=said) as fault, refuse_as_config("mine", "owner/name"):
        raise error
    assert "\n" not in str(fault.value)
