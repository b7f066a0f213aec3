"""pip's failures become one sentence that says what to do; its whole output is kept."""

from pathlib import Path

import pytest

from meetara_build.errors import SetupError
from meetara_build.setup.pip import run_pip

NOWHERE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_RETRIES": "1",
    "PIP_CONFIG_FILE": "/dev/null",
}


def refused(log: Path, **environment: str) -> str:
    with pytest.raises(SetupError) as fault:
        run_pip(
            *("download", "--no-deps", "--dest", str(log.parent), "no-such-package==1"),
            what="no-such-package==1 cannot be fetched",
            log=log,
            environment=environment,
        )
    return str(fault.value)


def test_no_network_is_said_with_what_to_check(tmp_path: Path) -> None:
    said = refused(tmp_path / "log", **NOWHERE)
    assert said.startswith(
        "no-such-package==1 cannot be fetched: pip cannot reach the package index; check the network"
    )
    assert said.endswith("then run `meetara-build setup` again")
    assert "NewConnectionError" in (tmp_path / "log").read_text()
    assert str(tmp_path / "log") in said


def test_a_package_that_the_index_does_not_have_is_told_from_no_network(tmp_path: Path) -> None:
    said = refused(tmp_path / "log", PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path))
    assert (
        "the package index does not have it (No matching distribution found for no-such-package==1)"
        in said
    )


def test_every_line_is_heard(tmp_path: Path) -> None:
    lines: list[str] = []
    run_pip("--version", what="", log=tmp_path / "log", listen=lines.append)
    assert lines[0].startswith("pip ")
    assert (tmp_path / "log").read_text() == "".join(lines)
