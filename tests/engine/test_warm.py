"""The warm process: it forks jobs, and nothing outlives whom it works for."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import run_there, until
from projects import REPOSITORY

from meetara_build import sockets
from meetara_build.engine import job, warm
from meetara_build.errors import BuildError, SetupError
from meetara_build.graph import load

SERVER = """
import importlib
import sys
from meetara_build.engine import warm
warm.load_all = lambda: [importlib.import_module(name) for name in sys.argv[3:]]
warm.IDLE_SECONDS, warm.REQUEST_SECONDS = float(sys.argv[2]), 0.5
warm.main()
"""

ASKER = "import json, sys; from meetara_build.engine import warm; sys.exit(warm.ask(json.load(open(sys.argv[1]))))"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of the test's own: no warm process is there."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@contextlib.contextmanager
def server(idle: float = 60, *preloaded: str) -> Iterator[subprocess.Popen[bytes]]:
    """A warm process where `warm.ask` looks for one; it has imported little, to be quick."""
    path = warm._socket_path()
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(path), str(idle), *preloaded]
    ) as process:
        until(path.exists)
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    """A warm process for packaging that the tests of this module share."""
    folder = str(tmp_path_factory.mktemp("served"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", folder)
        patch.setenv("TMPDIR", folder)
        with server(60, "meetara_build.stages.package") as process:
            yield process


def request(project: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    """Have nutrition packaged into ``folder/out``."""
    graph = load(project)
    step = graph.step("package", "nutrition")
    output = folder / "out"
    output.mkdir(exist_ok=True)
    return {
        "name": step.name,
        "stage": step.stage,
        "recipe": step.recipe,
        "inputs": {
            name: str(graph.root / given.place.folder) for name, given in step.inputs.items()
        },
        "output": str(output),
        "threads": 1,
        "report": str(folder / "package.traceback"),
        "gpus": 0,
        "root": str(folder),
        "about": {"domain": step.target, "stage": step.stage},
        **changes,
    }


def endless(project: Path, folder: Path) -> dict[str, Any]:
    """A request whose job waits for a file that never comes: its evaluation is a pipe that no one
    writes into."""
    asked = request(project, folder)
    given = folder / "evaluation"
    given.mkdir()
    os.mkfifo(given / "evaluation.json")
    answers = project / "artifacts" / "nutrition" / "evaluation" / "answers.jsonl"
    shutil.copy(answers, given / "answers.jsonl")
    return {**asked, "inputs": {**asked["inputs"], "evaluation": str(given)}}


def job_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    """The one job of a warm process, waiting for its pipe."""
    return until(lambda: psutil.Process(process.pid).children())[0]


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@contextlib.contextmanager
def asker(project: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that asks for a job that never ends."""
    path = folder / "request.json"
    path.write_text(json.dumps(endless(project, folder)))
    with subprocess.Popen(
        [sys.executable, "-c", ASKER, str(path)], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_job_runs_in_a_process_of_its_own(
    built_project: Path, tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    assert warm.ask(request(built_project, tmp_path)) == 0
    figures = json.loads((tmp_path / job.FIGURES).read_text())
    assert figures["pid"] not in (os.getpid(), served.pid)
    assert (tmp_path / "out" / "Modelfile").exists()


def test_a_job_speaks_through_its_asker(
    built_project: Path,
    tmp_path: Path,
    served: subprocess.Popen[bytes],
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert warm.ask(request(built_project, tmp_path, inputs={})) == 1
    assert capfd.readouterr().err.startswith("nutrition/package: unexpected KeyError")


def test_a_killed_asker_takes_its_job_along_and_nothing_else(
    built_project: Path, tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    with asker(built_project, tmp_path) as asking:
        waiting = job_of(served)
        asking.kill()
        until(lambda: gone(waiting), 5)
    assert warm.ask(request(built_project, tmp_path)) == 0
    assert served.poll() is None


def killing(process: subprocess.Popen[bytes], times: int) -> threading.Thread:
    """Kills the job that a warm process has at work, and so many in all."""

    def kill() -> None:
        for _ in range(times):
            job = job_of(process)
            job.send_signal(signal.SIGKILL)
            until(lambda job=job: gone(job), 5)  # type: ignore[misc]

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_a_killed_job_is_begun_once_more(
    built_project: Path,
    tmp_path: Path,
    served: subprocess.Popen[bytes],
    capfd: pytest.CaptureFixture[str],
) -> None:
    asked = endless(built_project, tmp_path)
    pipe = tmp_path / "evaluation" / "evaluation.json"

    def kill_and_mend() -> None:
        job = job_of(served)
        pipe.unlink()
        shutil.copy(
            built_project / "artifacts" / "nutrition" / "evaluation" / "evaluation.json", pipe
        )
        job.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill_and_mend)
    killer.start()
    assert warm.ask(asked) == 0
    killer.join()
    assert "nutrition/package: the job was ended by SIGKILL" in capfd.readouterr().err
    assert (tmp_path / "out" / "Modelfile").is_file()


def test_a_job_that_is_killed_twice_is_named_with_what_may_help(
    built_project: Path, tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    asked = endless(built_project, tmp_path)
    killer = killing(served, 2)
    with pytest.raises(
        BuildError,
        match=r"nutrition/package: the job was ended by SIGKILL \(out of memory\?.*, twice",
    ):
        warm.ask(asked)
    killer.join()


ECHO = """
import os, sys
def run(recipe, inputs, output):
    return {"proxy": os.environ.get("https_proxy")}
sys.modules["meetara_build.stages.package"] = sys.modules[__name__]
"""


def test_a_job_has_its_asker_s_environment(
    built_project: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "echo.py").write_text(ECHO)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    )
    with server(60, "echo"):
        for proxy in ("http://proxy:1", "http://proxy:2", None):
            monkeypatch.delenv("https_proxy") if proxy is None else monkeypatch.setenv(
                "https_proxy", proxy
            )
            assert warm.ask(request(built_project, tmp_path)) == 0
            assert json.loads((tmp_path / job.FIGURES).read_text())["metrics"] == {"proxy": proxy}


def test_a_job_that_hangs_for_as_long_as_its_asker_bears_is_ended_and_named(
    built_project: Path,
    tmp_path: Path,
    served: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(warm.HANG, "1")
    with pytest.raises(
        BuildError,
        match=r"the job hung: it used no CPU for 1 s and was ended .*, twice; build again",
    ):
        warm.ask(endless(built_project, tmp_path))
    assert psutil.Process(served.pid).children() == []


def test_a_patience_in_words_is_refused(
    built_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(warm.HANG, "soon")
    with pytest.raises(
        SetupError,
        match="MEETARA_HANG_SECONDS: 'soon' is no number of seconds; set it to one like 600",
    ):
        warm.ask(request(built_project, tmp_path))


@pytest.mark.parametrize("said", [b"", b"{", b"no json\n", b"{}\n"])
def test_a_connection_that_says_nothing_of_use_is_dropped(
    built_project: Path, tmp_path: Path, served: subprocess.Popen[bytes], said: bytes
) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        sockets.connect(connection, warm._socket_path())
        connection.sendall(said)
        assert warm.ask(request(built_project, tmp_path)) == 0
        assert connection.recv(1) == b""
    assert served.poll() is None


def test_jobs_run_side_by_side(
    built_project: Path, tmp_path: Path, served: subprocess.Popen[bytes]
) -> None:
    with asker(built_project, tmp_path):
        waiting = job_of(served)
        assert warm.ask(request(built_project, tmp_path)) == 0
        assert not gone(waiting)
    until(lambda: gone(waiting), 5)


def test_a_killed_warm_process_takes_its_jobs_along(
    built_project: Path, tmp_path: Path, temporary: Path
) -> None:
    with server() as process, asker(built_project, tmp_path) as asking:
        waiting = job_of(process)
        process.kill()
        assert asking.wait(10) == 1
        assert asking.stderr
        said = asking.stderr.read()
        assert (
            "nutrition/package: the warm process was ended during the job; build again (its log is "
            in said
        )
        until(lambda: gone(waiting), 5)


def test_a_limit_of_the_shell_s_is_named_where_the_warm_process_ends(
    built_project: Path, tmp_path: Path, temporary: Path
) -> None:
    before = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (1_000_000, before[1]))
    with server() as process, asker(built_project, tmp_path) as asking:
        resource.setrlimit(resource.RLIMIT_CPU, before)
        job_of(process)
        process.kill()
        assert asking.stderr
        said = "a limit of the shell is the likely cause (`ulimit -t` is 1000000): raise it, then build again"
        assert said in asking.stderr.read()


def test_it_ends_by_itself_when_no_job_has_come_for_a_while(temporary: Path) -> None:
    with server(0.3) as process:
        assert process.wait(10) == 0
    assert not warm._socket_path().exists()


def test_it_does_not_end_while_a_job_runs(
    built_project: Path, tmp_path: Path, temporary: Path
) -> None:
    with server(1.5) as process:
        with asker(built_project, tmp_path):
            waiting = job_of(process)
            time.sleep(3)
            assert not gone(waiting)
        assert process.wait(10) == 0


LATE = """
import select
serve = warm._Server._serve
def time_is_up(self, *_):  # just as someone connects
    select.select([self.listener], [], [])
    warm._Server._serve = serve
warm._Server._serve = time_is_up
"""


def test_whoever_connects_as_it_ends_is_served(
    built_project: Path, tmp_path: Path, temporary: Path
) -> None:
    path = warm._socket_path()
    script = SERVER.replace("warm.main()", LATE + "warm.main()")
    with subprocess.Popen([sys.executable, "-c", script, str(path), "0"]) as process:
        until(path.exists)
        assert warm.ask(request(built_project, tmp_path, stage="none")) == 1
        assert process.wait(10) == 0


def test_a_long_temporary_folder_is_no_hindrance(
    built_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with server():
        assert warm.ask(request(built_project, tmp_path, stage="none")) == 1
        assert "ModuleNotFoundError" in (tmp_path / "package.traceback").read_text()


def test_another_state_of_the_code_has_another_warm_process(tmp_path: Path) -> None:
    copied = tmp_path / "code"
    shutil.copytree(
        REPOSITORY / "meetara_build",
        copied / "meetara_build",
        ignore=shutil.ignore_patterns("__pycache__"),
    )

    def name() -> str:
        words = "from meetara_build.engine import warm; print(warm._socket_path().name)"
        return run_there(
            copied, sys.executable, "-c", words, TMPDIR=str(tmp_path), PYTHONPATH=str(copied)
        ).stdout

    before = name()
    assert before
    assert name() == before
    os.utime(copied / "meetara_build" / "stages" / "merge.py")
    assert name() != before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(temporary: Path) -> None:
    folder = temporary / f"meetara-{os.getuid()}"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    with pytest.raises(
        SetupError, match=r"belongs to another user; remove it, or set TMPDIR to a folder of yours"
    ):
        warm._socket_path()


def test_a_link_in_place_of_the_folder_is_refused(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (temporary / f"meetara-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SetupError, match="belongs to another user"):
        warm._socket_path()


def test_a_warm_process_that_cannot_start_says_why(project: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "torch.py").write_text("raise ImportError('this torch is broken')\n")
    shutil.rmtree(project / "artifacts" / "store")
    for domain in ("nutrition", "programming", "storytelling"):
        shutil.rmtree(project / "artifacts" / domain / "package")
    path = os.pathsep.join([str(broken), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "meetara_build", "stage", "package", "nutrition"]
    done = run_there(project, *words, TMPDIR=str(tmp_path), PYTHONPATH=path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    log = Path(done.stderr.partition("its log is ")[2].partition(")")[0])
    assert "this torch is broken" in log.read_text()


def test_starters_at_once_share_one_process_that_has_imported_everything(
    project: Path, tmp_path: Path
) -> None:
    shutil.rmtree(project / "artifacts" / "store")
    for domain in ("nutrition", "programming", "storytelling"):
        shutil.rmtree(project / "artifacts" / domain / "package")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    words = [sys.executable, "-m", "meetara_build", "stage", "package"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    asking = [
        subprocess.Popen(
            [*words, domain], cwd=project, env=environment, stdout=subprocess.PIPE, text=True
        )
        for domain in ("nutrition", "programming", "storytelling")
    ]
    said = [process.communicate()[0].strip() for process in asking]
    started = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(temporary) in " ".join(process.info["cmdline"] or [])
        and "meetara_build.engine.warm" in process.info["cmdline"]
    ]
    try:
        assert said == [
            "nutrition/package: built",
            "programming/package: built",
            "storytelling/package: built",
        ]
        assert len(started) == 1
        loaded = {Path(region.path).name for region in started[0].memory_maps()}
        assert any("torch" in name for name in loaded)
        assert started[0].environ()["OMP_WAIT_POLICY"] == "passive"
    finally:
        for process in started:
            process.kill()
