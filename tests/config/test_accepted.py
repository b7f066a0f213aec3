"""conf/accepted/: builds that people accepted are read as they were written, and a damaged file is
named."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meetara_build.config.accepted import read_accepted, write_accepted
from meetara_build.errors import ConfigError
from meetara_build.stages.recipes.accepted import Accepted

IDS = st.text("0123456789abcdef", min_size=16, max_size=16)
LOSSES = st.floats(0, 30).map(lambda loss: float(f"{loss:.6g}"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.dictionaries(IDS, st.tuples(LOSSES, st.integers(1, 5000)), min_size=1, max_size=20))
def test_what_was_accepted_is_read_as_it_was_written(
    tmp_path: Path, records: dict[str, tuple[float, int]]
) -> None:
    build = Accepted(base="mini", records=records)
    path = write_accepted(tmp_path, "nutrition", build)
    assert path == tmp_path / "accepted" / "nutrition.yaml"
    assert read_accepted(tmp_path) == {"nutrition": build}


def test_a_project_without_the_folder_has_accepted_nothing(tmp_path: Path) -> None:
    assert read_accepted(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: mini", "nutrition.yaml: key 'records' is missing; add it"),
        ("base: mini\nrecords: {aa: {loss: -1.0, tokens: 5}}", "records.aa.loss: should be"),
        ("base: mini\nrecords: {aa: {loss: 1.0, tokens: 0}}", "records.aa.tokens: should be"),
        ("base: mini\nrecords: {aa: {los: 1.0, tokens: 1}}", "unknown key 'records.aa.los'"),
        ("base: mini\nrecords: 5", "records: expected `key: value` lines"),
    ],
)
def test_a_damaged_file_is_refused_by_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "accepted").mkdir()
    (tmp_path / "accepted" / "nutrition.yaml").write_text(text)
    with pytest.raises(ConfigError) as fault:
        read_accepted(tmp_path)
    assert said in str(fault.value)
