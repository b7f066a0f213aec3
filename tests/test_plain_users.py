"""What only root never meets: read-only files, a home of someone else's, a store that several users
share."""

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import outcomes, run_there
from fast_stages import fast_project
from projects import REPOSITORY, edit

WITHOUT_RIGHTS = (
    ["unshare", "--user", "--map-user=1000", "--map-group=1000"],
    ["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
)
"""Ways to run a command as a user for whom rights count, and who owns what root owns."""
GROUP = 4300
UMASKS = {4241: "077", 4242: "022"}
"""Two users of that group, and what each keeps from others."""


@pytest.fixture(scope="session")
def plainly(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words before a command that have a plain user run it: none, where we are one."""
    sealed = tmp_path_factory.mktemp("sealed") / "file"
    sealed.touch(0o444)
    ask = [sys.executable, "-c", f"import os; print(os.access({str(sealed)!r}, os.W_OK))"]
    for words in ([], *WITHOUT_RIGHTS):
        if not words or shutil.which(words[0]):
            done = subprocess.run([*words, *ask], capture_output=True, text=True, check=False)
            if done.stdout == "False\n":
                return words
    pytest.fail("root cannot become a plain user here: neither unshare nor setpriv works")


@pytest.fixture
def meetara(plainly: list[str], project: Path, warm_folder: Path, tmp_path: Path) -> Any:
    """``meetara("plan", "--json")`` runs meetara-build in the project as a plain user whose home is
    not theirs."""
    home = tmp_path / "home"
    home.mkdir(mode=0o555)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*plainly, sys.executable, "-m", "meetara_build", *words]
        return run_there(
            project, *command, TMPDIR=str(warm_folder), HOME=str(home), XDG_CACHE_HOME=""
        )

    return run


def test_a_plain_user_builds_edits_rebuilds_restores_and_collects(
    plainly: list[str], project: Path, meetara: Any
) -> None:
    edit(project / "conf" / "domain" / "nutrition.yaml", "description", "Another")
    words = [
        "-m",
        "snakemake",
        "nutrition",
        "--profile",
        "conf/profile/local",
        "--config",
        "warm=false",
    ]
    asked = run_there(project, *plainly, sys.executable, *words, "-n")
    assert asked.returncode == 0, asked.stderr
    done = run_there(project, *plainly, sys.executable, *words)
    assert done.returncode == 0, done.stderr
    assert outcomes(project)[-1] == ("package", "nutrition", "built")
    card = project / "artifacts" / "nutrition" / "package" / "README.md"
    assert "Another" in card.read_text()
    assert card.stat().st_mode & 0o222 == 0

    edit(project / "conf" / "domain" / "nutrition.yaml", "description", "Again another")
    edit(project / "conf" / "domain" / "nutrition.yaml", "description", "Another")
    (project / "artifacts" / "nutrition" / "gguf" / "nutrition-Q8_0.gguf").unlink()
    done = meetara("build", "nutrition")
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes(project)[-1] == ("gguf", "nutrition", "restored")
    assert {
        path.stat().st_mode & 0o222
        for path in (project / "artifacts" / "nutrition" / "gguf").glob("*.gguf")
    } == {0}

    assert meetara("gc", "--max-size", "0").returncode == 0
    assert json.loads(meetara("verify", "--json").stdout)["faults"] == {}


def test_the_doctor_names_a_home_that_cannot_be_written(meetara: Any, tmp_path: Path) -> None:
    (found,) = [
        check
        for check in json.loads(meetara("doctor", "--json").stdout)["checks"]
        if check["name"] == "caches"
    ]
    assert found["found"] == f"{tmp_path / 'home' / '.cache'} cannot be written"
    assert found["mend"].startswith("set HOME or XDG_CACHE_HOME to a folder of yours")


def test_a_store_that_can_only_be_read_serves(project: Path, meetara: Any) -> None:
    shutil.rmtree(project / "artifacts" / "nutrition" / "package")
    store = project / "artifacts" / "store"
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        done = meetara("build", "nutrition")
    finally:
        for path in folders:
            path.chmod(0o755)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcomes(project)[-1] == ("package", "nutrition", "restored")


def test_a_store_that_cannot_be_read_names_the_file_whose_it_is_and_what_to_do(
    project: Path, meetara: Any
) -> None:
    actions = project / "artifacts" / "store" / "actions"
    shutil.rmtree(project / "artifacts" / "nutrition" / "package")
    actions.chmod(0)
    try:
        done = meetara("plan", "nutrition")
    finally:
        actions.chmod(0o755)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{actions}: cannot be read (Permission denied); it is " in done.stderr
    assert "'s, with the rights d---------." in done.stderr
    assert f"chmod -R g+rwX {actions.parent}`" in done.stderr


# Two users


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder that every user can reach, as pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="two-users-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


TOLD = """
import json, sys
from pathlib import Path
from fast_stages import build
from projects import edit
project, text = Path(sys.argv[1]), sys.argv[2]
edit(project / "conf" / "domain" / "nutrition.yaml", "description", text)
ran = build(project)
print(json.dumps([sorted(ran.worked_out), sorted(ran.restored)]))
"""


def built_by(user: int, folder: Path, text: str) -> list[list[str]]:
    """What a build of this user's works out and what it restores, after the domain was described
    so."""
    # Whose rights count for writing alone: the Python and the tests may lie where only root may
    # read.
    caps = [
        f"--{kind}=-all,+dac_read_search" for kind in ("inh-caps", "ambient-caps", "bounding-set")
    ]
    who = ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={GROUP}", *caps]
    asked = f"umask {UMASKS[user]}; exec {shlex.join([sys.executable, '-c', TOLD, str(folder / str(user)), text])}"
    paths = f"{REPOSITORY}:{REPOSITORY / 'tests'}"
    (folder / f"tmp-{user}").mkdir(exist_ok=True)
    (folder / f"tmp-{user}").chmod(0o777)
    done = run_there(
        folder, *who, "sh", "-c", asked, PYTHONPATH=paths, TMPDIR=str(folder / f"tmp-{user}")
    )
    assert done.returncode == 0, done.stderr
    ran: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return ran


def give(path: Path, user: int) -> None:
    for one in (path, *path.rglob("*")):
        os.chown(one, user, user)


def test_two_users_with_umasks_of_their_own_share_a_store(common: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip(
            "only root can be two users; tests/test_store.py has the rights of what each makes"
        )
    store = common / "store"
    store.mkdir()
    os.chown(store, 0, GROUP)
    store.chmod(0o2770)
    for user in UMASKS:
        project = fast_project(common / str(user))
        edit(project / "conf" / "build.yaml", "store", str(store))
        give(project, user)
    one, other = UMASKS
    assert len(built_by(one, common, "first")[0]) > 20, "everything is worked out once"
    assert built_by(other, common, "first")[0] == [], "and then taken from the store"
    assert built_by(other, common, "second") == [["nutrition/package"], ["report/report"]]
    assert built_by(one, common, "second") == [[], ["nutrition/package"]]
    assert built_by(one, common, "third") == [["nutrition/package"], ["report/report"]]
    for path in store.rglob("*"):
        state = path.stat()
        wanted = 0o070 if path.is_dir() else 0o040
        assert state.st_mode & wanted == wanted, (path, stat.filemode(state.st_mode))
        assert state.st_gid == GROUP or state.st_mode & 0o004, path
