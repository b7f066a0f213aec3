"""Helper processes of one user: one for each name, begun by whoever needs it first."""

import socket
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from meetara_build import sockets

SERVER = """
import sys, time
from pathlib import Path
from meetara_build import sockets
listener = sockets.listen(Path(sys.argv[1]))
print("begun", flush=True)
listener.accept()
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for sockets of the test's own, whose name is longer than a socket's may be."""
    deep = tmp_path / ("deep" * 30)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    return sockets.find_folder()


def test_whoever_connects_is_heard_wherever_the_folder_lies(folder: Path) -> None:
    listener = sockets.listen(folder / "one.sock")
    with socket.socket(socket.AF_UNIX) as asker:
        sockets.connect(asker, folder / "one.sock")
        asker.sendall(b"?")
        heard, _ = listener.accept()
        assert heard.recv(1) == b"?"
        heard.close()
    listener.close()


def test_a_process_is_started_once_by_however_many_need_it(folder: Path) -> None:
    path = folder / "one.sock"
    command = [sys.executable, "-c", SERVER, str(path)]
    path.touch()  # one that was killed left its socket behind
    came: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: came.append(sockets.start_once(path, command, {**_environment()}))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert came == [True] * 4
    with socket.socket(socket.AF_UNIX) as asker:
        sockets.connect(asker, path)
    assert path.with_suffix(".log").read_text().count("begun") == 1
    assert sockets.read_last_words(path) == "begun"
    _end(path)


def test_one_that_cannot_start_leaves_its_last_words(folder: Path) -> None:
    path = folder / "one.sock"
    command = [sys.executable, "-c", "raise SystemExit('no room\\n')"]
    assert not sockets.start_once(path, command, {})
    assert sockets.read_last_words(path) == "no room"


def test_a_name_is_of_what_it_is_made_from(monkeypatch: pytest.MonkeyPatch) -> None:
    name = sockets.name_process("one", {"a": 1})
    assert name == sockets.name_process("one", {"a": 1}) != sockets.name_process("one", {"a": 2})
    monkeypatch.setenv("OMP_NUM_THREADS", "17")
    assert sockets.name_process("one", {"a": 1}) != name


def _environment() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(sockets.__file__).parents[1])}


def _end(path: Path) -> None:
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        if str(path) in (process.info["cmdline"] or []):
            process.kill()
