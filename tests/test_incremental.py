"""Whatever is edited, touched, damaged, deleted or killed in between: a build gives what a clean
one gives, and does what its plan says.

`Workplace` is the project all this happens to; `Incremental` has Hypothesis do it in any order.
`bench.incremental_soak` goes on for longer, and with the real stages.
"""

import hashlib
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import damage, jobs, run_there
from fast_stages import Edit, Ran, added, build, fast_project, gone, lines, reworded, text
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from projects import edit, override

from meetara_build.engine.snakemake import command
from meetara_build.graph import Step, load
from meetara_build.plan import plan
from meetara_build.store.manifest import read_manifest

Build = Callable[[Path, Sequence[str]], Ran]
Digests = dict[str, str]


def conf(file: str, key: str, value: Any) -> Edit:
    return lambda project: edit(project / "conf" / f"{file}.yaml", key, value)


def overriding(domain: str, key: str, value: Any) -> Edit:
    return lambda project: override(project, domain, {key: value})


def swapped(project: Path) -> None:
    one, other = (
        project / "conf" / "domain" / f"{name}.jsonl" for name in ("storytelling", "music")
    )
    one.rename(project / "aside")
    other.rename(one)
    (project / "aside").rename(other)


stories, tales, mini = (
    partial(overriding, "storytelling"),
    partial(conf, "domain/storytelling"),
    partial(conf, "base/mini"),
)

# What a real build can do in seconds: storytelling teaches its base nothing.
CHEAP: dict[str, list[Edit]] = {
    "rank": [stories("lora.rank", 8), stories("lora.rank", 4)],
    "epochs": [stories("training.max_steps", 3), stories("training.max_steps", 5)],
    "checkpoints": [stories("training.checkpoint_seconds", 5)],
    "quants": [tales("quants", ["F16", "Q8_0"]), tales("quants", ["Q8_0"])],
    "lora file": [stories("gguf.files", "merged")],
    "held-out records": [stories("evaluation.max_records", 2)],
    "bounds": [stories("evaluation.max_kl.Q8_0", 0.9), stories("merge.bound", 0.9)],
    "description": [tales("description", "Another"), tales("description", "A third")],
    "category": [tales("category", "own")],
    "tales": [
        added("storytelling", "train"),
        added("storytelling", "test"),
        reworded("storytelling", "validation"),
        lines("storytelling", lambda old: [*old, ""]),
        lines("storytelling", lambda old: old[::-1]),
    ],
}
CHOICES: dict[str, list[Edit]] = {
    **CHEAP,
    "seed": [conf("build", "seed", 3)],
    "domains": [
        conf("build", "domains", ["nutrition", "storytelling"]),
        conf("build", "domains", "all"),
    ],
    "keep_merged": [conf("build", "keep_merged", True), stories("keep_merged", True)],
    "licence": [mini("licence", "mit")],
    "pretraining": [
        mini("pretraining.epochs", 2),
        mini("pretraining.share", 0.8),
        mini("pretraining.domains", ["nutrition"]),
    ],
    "tokenizer": [mini("tokenizer.vocab_size", 2048)],
    "weights": [text("models/other/model.safetensors", str.upper)],
    "base": [stories("base", "other")],
    "machine": [stories("hardware", "big")],
    "overlay": [gone("conf/overlay/programming.yaml"), overriding("programming", "lora.rank", 8)],
    "records": [
        added("nutrition", "taught"),
        added("nutrition", "train"),
        added("nutrition", "test"),
        reworded("nutrition", "taught"),
        lines("nutrition", lambda old: [*old, "{}"]),
        lines("nutrition", lambda old: old[::-1]),
    ],
    "files": [swapped],
}
"""What can be chosen in a configuration: 0 is as it came, 1 the first edit, and so on."""


class Workplace:
    """A project in a folder, made from a ``pristine`` one that stays as it is.

    ``make`` builds some domains or all, and says what it did.
    """

    def __init__(
        self, folder: Path, pristine: Path, make: Build, clean: dict[Any, Digests]
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.pristine, self.make, self.clean = folder, pristine, make, clean
        self.project = shutil.copytree(pristine, folder / "project")
        self.chosen: dict[str, int] = {}
        self.done: Counter[str] = Counter()
        self.failed = False

    def choose(self, name: str, which: int, *, old_time: bool = False) -> None:
        """Edit the project so that it is configured in this way; with ``old_time`` no file's time
        tells that it changed."""
        self.done["edits"] += 1
        self.chosen = {key: value for key, value in {**self.chosen, name: which}.items() if value}
        wanted = self._configured(self.folder / "wanted")
        for part in ("conf", "models"):
            for path in _files(self.project / part) - _files(wanted / part):
                (self.project / part / path).unlink()
            for path in _files(wanted / part):
                _replace(
                    self.project / part / path,
                    (wanted / part / path).read_bytes(),
                    old_time=old_time,
                )
        shutil.rmtree(wanted)

    def _configured(self, folder: Path) -> Path:
        """A new project that is configured as chosen."""
        shutil.copytree(self.pristine, folder)
        for name, edits in CHOICES.items():
            if which := self.chosen.get(name):
                edits[which - 1](folder)
        return folder

    def touch(self, which: int) -> None:
        """Give a file of the configuration, or a source, another time."""
        self._any(
            _files(self.project / "conf"),
            which,
            lambda name: os.utime(self.project / "conf" / name),
        )

    def delete(self, which: int) -> None:
        """Delete a file of an artifact, or a manifest."""
        self._any(
            self._artifacts(), which, lambda name: (self.project / "artifacts" / name).unlink()
        )

    def damage(self, which: int) -> None:
        """Change a byte of a file of an artifact, and leave its size and time."""
        self._any(
            {name for name in self._artifacts() if not name.endswith("manifest.json")},
            which,
            self._damage,
        )

    def _damage(self, name: str) -> None:
        path = self.project / "artifacts" / name
        before = path.stat()
        damage(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _artifacts(self) -> set[str]:
        return {
            name
            for name in _files(self.project / "artifacts")
            if not name.startswith((".", "store/", "logs/", "runs."))
        }

    def _any(self, names: set[str], which: int, act: Callable[[str], object]) -> None:
        if names:
            self.done["files touched, deleted or damaged"] += 1
            act(sorted(names)[which % len(names)])

    def forget(self, what: str) -> None:
        """Delete a folder of the project."""
        self.done["folders deleted"] += 1
        shutil.rmtree(self.project / what, ignore_errors=True)

    def domains(self, which: int) -> list[str]:
        """One of the domains, or none, which means all."""
        known = load(self.project).domains
        return [] if which >= len(known) else [known[which]]

    def build(self, domains: Sequence[str] = ()) -> None:
        """Build, and hold what was done against the plan, and what is there against a clean
        build."""
        self.failed = True
        ran = self.make(self.project, domains)
        assert not ran.not_as_announced(), ran.not_as_announced()
        graph = load(self.project)
        assert plan(graph, domains).to_do() == []
        steps = [step for step in graph.above(graph.ends(domains)) if step.keep]
        found = {step.name: digest(graph.root, step) for step in steps}
        expected = self._clean()
        differences = [name for name in found if found[name] != expected[name]]
        assert not differences, f"not what a clean build gives: {differences}"
        self.done += Counter({"builds": 1, "artifacts compared": len(found)})
        self.failed = False

    def end(self) -> None:
        """Build all twice: the second build has nothing to do but to remove what kills have
        left."""
        self.build()
        self.build()
        graph = load(self.project)
        left = [graph.root / step.place.folder for step in graph.steps.values() if not step.keep]
        for step in graph.steps.values():
            left += [
                *graph.root.glob(f".work/{step.reference}-*"),
                *graph.root.glob(f"{step.place.folder}/.*.[0-9]*"),
            ]
        assert not any(path.exists() for path in left), (
            f"left over: {[str(path) for path in left if path.exists()]}"
        )

    def kill(self, which: int, after: int, *, by_hand: bool) -> None:
        """Begin a build of one domain or all, and kill it."""
        self.done["kills"] += 1
        killed(self.project, self.domains(which), after, by_hand=by_hand)

    def _clean(self) -> Digests:
        """What is there after a clean build of the same configuration, in a new folder and with an
        empty store."""
        key = tuple(sorted(self.chosen.items()))
        if key not in self.clean:
            project = self._configured(self.folder / "clean")
            self.make(project, [])
            graph = load(project)
            self.clean[key] = {
                step.name: digest(graph.root, step) for step in graph.steps.values() if step.keep
            }
            shutil.rmtree(project)
        return self.clean[key]


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _replace(path: Path, content: bytes, *, old_time: bool) -> None:
    before = path.stat() if path.exists() else None
    if before is None or path.read_bytes() != content:
        path.write_bytes(content)
        if before is not None and old_time:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def digest(root: Path, step: Step) -> str:
    """An artifact's content digest, once every file has proved to be what its manifest says, and no
    other is there."""
    manifest, folder = read_manifest(root / step.place.manifest), root / step.place.folder
    for name, entry in manifest.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry["sha256"], (
            f"{step.name}: {name}"
        )
    others = _files(folder) - {*manifest.files, "manifest.json"}
    assert not others, f"{step.name}: {others}"
    return manifest.digest()


WRITING = (
    "os.rename",
    "os.remove",
    "os.link",
    "os.mkdir",
    "os.rmdir",
    "os.chmod",
    "os.utime",
    "shutil.rmtree",
)


def killed(project: Path, domains: Sequence[str], after: int, *, by_hand: bool) -> None:
    """A fast build in a process of its own that ends before it changes anything on the disk for the
    ``after``-th time.

    SIGKILL ends it; or, ``by_hand``, Ctrl-C.
    """
    process = os.fork()
    if process:
        os.waitpid(process, 0)
        return
    left = after

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in WRITING or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            left -= 1
            if left == 0 and by_hand:
                raise KeyboardInterrupt
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(watch)
        build(project, domains)
    finally:
        os._exit(0)


EDITS = st.sampled_from(
    [(name, which) for name, edits in CHOICES.items() for which in range(len(edits) + 1)]
)
FOLDERS = st.sampled_from(
    [".meetara", "artifacts/store", "artifacts/nutrition", "artifacts/base", "artifacts/logs"]
)
ANY, SOME, MOMENTS = st.integers(0, 1000), st.integers(0, 7), st.integers(1, 400)


class Incremental(RuleBasedStateMachine):
    """Anything that can happen to a project, in any order."""

    folder: Path
    pristine: Path
    clean: dict[Any, Digests]
    done: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.place = Workplace(self.folder, self.pristine, build, self.clean)

    @rule(change=EDITS, old_time=st.booleans())
    def is_edited(self, change: tuple[str, int], old_time: bool) -> None:
        self.place.choose(*change, old_time=old_time)

    @rule(change=EDITS, old_time=st.booleans(), which=SOME)
    def is_edited_and_built(self, change: tuple[str, int], old_time: bool, which: int) -> None:
        self.place.choose(*change, old_time=old_time)
        self.place.build(self.place.domains(which))

    @rule(change=EDITS, which=SOME, after=MOMENTS, by_hand=st.booleans())
    def is_edited_and_killed(
        self, change: tuple[str, int], which: int, after: int, by_hand: bool
    ) -> None:
        self.place.choose(*change)
        self.place.kill(which, after, by_hand=by_hand)

    @rule(touched=ANY, deleted=ANY, damaged=ANY)
    def is_meddled_with(self, touched: int, deleted: int, damaged: int) -> None:
        self.place.touch(touched)
        self.place.delete(deleted)
        self.place.damage(damaged)

    @rule(what=FOLDERS, change=EDITS, which=SOME)
    def forgets(self, what: str, change: tuple[str, int], which: int) -> None:
        self.place.forget(what)
        self.place.choose(*change)
        self.place.build(self.place.domains(which))

    @rule(which=SOME)
    def is_built(self, which: int) -> None:
        self.place.build(self.place.domains(which))

    def teardown(self) -> None:
        if not self.place.failed:
            self.place.end()
        self.done.update(self.place.done)


def prepare(folder: Path) -> type[Incremental]:
    """The machine at work in a folder."""
    Incremental.folder, Incremental.pristine = folder / "work", fast_project(folder / "pristine")
    Incremental.clean, Incremental.done = {}, Counter()
    return Incremental


def test_a_build_equals_a_clean_one_whatever_came_before(tmp_path: Path) -> None:
    """The same draws each time: a suite that fails by chance says nothing of a change.
    bench.incremental_soak draws others."""
    run_state_machine_as_test(
        prepare(tmp_path),
        settings=settings(max_examples=4, stateful_step_count=12, derandomize=True),
    )


@pytest.mark.parametrize(
    ("deleted", "choice"),
    [
        ("base/mini/corpus/corpus.jsonl", "description"),
        ("storytelling/gguf/storytelling-F16.gguf", "category"),
        ("storytelling/adapter/training.json", "held-out records"),
    ],
)
def test_snakemake_starts_a_job_for_whatever_is_not_fresh_and_for_nothing_else(
    tmp_path: Path, deleted: str, choice: str
) -> None:
    """That is what a fast build takes for granted; also where something fresh lies between two
    things to do."""
    place = Workplace(tmp_path / "work", fast_project(tmp_path / "pristine"), build, {})
    place.build()
    (place.project / "artifacts" / deleted).unlink()
    place.choose(choice, 1)
    graph = load(place.project)
    made = plan(graph)
    asked = run_there(place.project, *command(graph, made, "local"), "--dry-run")
    assert jobs(asked) == {(item.step.stage, item.step.target) for item in made.to_do()}


@pytest.mark.parametrize("manifest_too", [False, True])
def test_what_is_no_longer_made_goes_also_where_nobody_knows_of_it(
    tmp_path: Path, manifest_too: bool
) -> None:
    """The store and the manifest said which files an artifact had; somebody deleted the store, or
    both."""
    place = Workplace(tmp_path / "work", fast_project(tmp_path / "pristine"), build, {})
    place.build()
    folder = place.project / "artifacts" / "storytelling" / "gguf"
    assert (folder / "storytelling-Q4_K_M.gguf").exists()
    place.forget("artifacts/store")
    if manifest_too:
        (folder / "manifest.json").unlink()
    place.choose("quants", 2)
    place.build()
    assert {path.name for path in folder.iterdir()} == {
        *("storytelling-F16.gguf", "storytelling-Q8_0.gguf", "storytelling-lora.gguf"),
        *("proof.json", "manifest.json"),
    }


@pytest.mark.parametrize("after", [1, 40, 160, 640])
def test_a_first_build_that_is_killed_goes_on(tmp_path: Path, after: int) -> None:
    place = Workplace(tmp_path / "work", fast_project(tmp_path / "pristine"), build, {})
    place.kill(99, after, by_hand=False)
    place.end()
