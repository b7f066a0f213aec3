"""No process outlives the one it works for."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from commands import until

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's prctl")
IMPORTS = "import os, time; from meetara_build.hosting.processes import adopt_orphans, die_with_parent, end_descendants\n"


def python(words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", IMPORTS + words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# die_with_parent


@LINUX
def test_a_process_that_is_to_die_with_its_parent_does() -> None:
    child = (
        "import os, time; from meetara_build.hosting.processes import die_with_parent; "
        "die_with_parent(os.getppid()); print(os.getpid(), flush=True); time.sleep(600)"
    )
    words = [
        sys.executable,
        "-c",
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.send_signal(signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid), 5)


def test_a_process_whose_parent_is_gone_already_ends_at_once() -> None:
    words = "from meetara_build.hosting.processes import die_with_parent; die_with_parent(1); print('went on')"
    done = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert not done.stdout


# end_descendants

LEAVE = """
if not os.fork():  # a child that leaves its own session, and one of its own behind
    os.setsid()
    if os.fork():
        os._exit(0)
    open({file!r}, "w").write(str(os.getpid()))
    time.sleep(600)
os.wait()
while not (os.path.exists({file!r}) and os.path.getsize({file!r})):
    time.sleep(0.01)
"""


@LINUX
def test_what_descendants_leave_behind_is_ended_where_it_was_adopted(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    done = python(
        "adopt_orphans()\n" + LEAVE.format(file=str(file)) + "end_descendants(); print('done')"
    )
    assert done.stdout == "done\n", done.stderr
    assert not lives(int(file.read_text()))


def test_children_are_ended_with_their_children_and_others_are_not(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with subprocess.Popen(["sleep", "600"]) as other:
        shell = f"sleep 600 & echo $! > {file}; sleep 600 & echo $! >> {file}; wait"
        done = python(f"""
import subprocess
adopt_orphans()
subprocess.Popen(["sh", "-c", {shell!r}], start_new_session=True)
while not (os.path.exists({str(file)!r}) and open({str(file)!r}).read().count("\\n") == 2):
    time.sleep(0.01)
end_descendants()
print("done")
""")
        assert done.stdout == "done\n", done.stderr
        assert not any(lives(int(pid)) for pid in file.read_text().split())
        assert lives(other.pid)
        other.kill()


@LINUX
def test_a_process_that_forks_and_ends_without_end_is_caught(tmp_path: Path) -> None:
    file = tmp_path / "hops"
    done = python(f"""
adopt_orphans()
if not os.fork():
    end = time.monotonic() + 20
    while time.monotonic() < end:
        open({str(file)!r}, "a").write(".")
        if os.fork():
            os._exit(0)
        time.sleep(0.001)
    os._exit(0)
time.sleep(0.3)
end_descendants()
print("done")
""")
    assert done.stdout == "done\n", done.stderr
    hops = file.stat().st_size
    assert hops > 5
    time.sleep(0.1)
    assert file.stat().st_size == hops


def test_a_process_without_children_has_nothing_to_end() -> None:
    done = python("end_descendants(); print('done')")
    assert (done.stdout, done.stderr) == ("done\n", "")
