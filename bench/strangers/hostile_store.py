"""Hostile and rough treatment of the store and of manifests: names that lead elsewhere, mixed-up
files, other users, full disks."""

import contextlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from commands import outcomes
from projects import edit

from bench.strangers.campaign import BIN, Place, Said, case, expect, expect_refusal, expect_success
from meetara_build.graph import Step, load
from meetara_build.plan import FRESH, RESTORE, RUN, plan
from meetara_build.store.content import Store
from meetara_build.store.manifest import MANIFEST

TRIED = "programming"
"""The domain whose package is tampered with."""
GROUP, OWNER, COLLEAGUE = 51_200, 51_201, 0
"""Ids of two users and of the group that both are in. The colleague is root without its rights, as
Python may lie in its home."""
RIGHTS = {OWNER: "-all,+dac_read_search", COLLEAGUE: "-all"}
"""What each may do beyond its files' rights; the owner has to get at Python."""


def planned(project: Path, stage: str = "package", domain: str = TRIED) -> str:
    """What a build would do with a step."""
    return next(
        item.action
        for item in plan(load(project)).items
        if (item.step.stage, item.step.target) == (stage, domain)
    )


def package_of(project: Path) -> tuple[Step, Store, Path]:
    """The step, the store, and the folder of the package that is tampered with."""
    graph = load(project)
    step = graph.step("package", TRIED)
    return step, Store(graph.store, graph.root), graph.root / step.place.folder


def action_of(project: Path) -> Path:
    """The file in the store that answers for the package as it is now."""
    step, store, _ = package_of(project)
    return store.action(store.read_reference(step.reference))


def make_package(place: Place, project: Path) -> None:
    """Have the package made or restored."""
    expect_success(place.run(project, "stage", "package", TRIED))


def describe(project: Path, text: str) -> None:
    """Change what only the package is made from."""
    edit(project / "conf" / "domain" / f"{TRIED}.yaml", "description", text)


def expect_whole(place: Place, project: Path) -> None:
    """All files of the package are as built."""
    expect_success(place.run(project, "verify", TRIED))


@case(
    "H4",
    "an action of the store whose files lead out of an artifact's folder is damaged: nothing is written there",
)
def names_that_lead_elsewhere(place: Place) -> None:
    project = place.project(built=True)
    action, package = action_of(project), package_of(project)[2]
    right = json.loads(action.read_text())
    entry = next(iter(right["files"].values()))
    planted = [
        project / "plugins" / "helper.py",
        project / "conf" / "domain" / "extra.yaml",
        place.folder / "absolute",
    ]
    names = [
        os.path.relpath(planted[0], package),
        f"notes/../{os.path.relpath(planted[1], package)}",
        str(planted[2]),
    ]
    for name, path in zip(names, planted, strict=True):
        action.chmod(0o644)
        action.write_text(json.dumps({**right, "files": {**right["files"], name: entry}}))
        shutil.rmtree(package)
        make_package(place, project)
        expect(not path.exists(), f"{path} was written")
        expect_whole(place, project)
        expect(outcomes(project)[-1] == ("package", TRIED, "built"), outcomes(project)[-1])


@case("H4b", "a manifest of a checkout that names a file elsewhere has nothing deleted there")
def names_to_be_deleted(place: Place) -> None:
    project = place.project(built=True)
    package = package_of(project)[2]
    mine = project / "thesis.md"
    mine.write_text("Of three years' work.\n")
    manifest = package / MANIFEST
    right = json.loads(manifest.read_text())
    entry = next(iter(right["files"].values()))
    manifest.chmod(0o644)
    manifest.write_text(
        json.dumps({**right, "files": {**right["files"], os.path.relpath(mine, package): entry}})
    )
    describe(project, "A new edition")
    make_package(place, project)
    expect(mine.read_text() == "Of three years' work.\n", "the file is gone, or another")
    expect(planned(project) == FRESH, planned(project))


@case(
    "H11",
    "an action that another work's took the place of is no answer: what was asked for is made, and verify names it",
)
def answers_of_other_questions(place: Place) -> None:
    project = place.project(built=True)
    texts = ["Of loops", "Of lists"]
    actions = []
    for text in texts:
        describe(project, text)
        make_package(place, project)
        actions.append(action_of(project))
    first = actions[0].read_bytes()
    actions[0].unlink()
    shutil.copy(actions[1], actions[0])
    describe(project, texts[0])
    shutil.rmtree(package_of(project)[2])
    expect(planned(project) == RUN, f"{planned(project)} was planned")
    checked = place.run(project, "verify")
    expect(checked.code == 1 and actions[0].stem[:12] in checked.text, f"verify: {checked.text}")
    make_package(place, project)
    card = (package_of(project)[2] / "README.md").read_text()
    expect(texts[0] in card and texts[1] not in card, card)
    expect(
        actions[0].read_bytes() == first and planned(project) == FRESH,
        f"{planned(project)} after it was made",
    )


@case(
    "H18",
    "a manifest of valid JSON that says nothing is a damaged one: what it stands for is not fresh, and comes back",
)
def manifests_that_say_nothing(place: Place) -> None:
    project = place.project(built=True)
    manifest = package_of(project)[2] / MANIFEST
    right = json.loads(manifest.read_text())
    empty: list[Any] = [
        {},
        [],
        None,
        7,
        {**right, "made_from": {}},
        {**right, "made_from": []},
        {**right, "files": ["README.md"]},
        {**right, "inputs": {"gguf": None}},
        {**right, "made_from": {**right["made_from"], "recipe": None}},
    ]
    for content in empty:
        manifest.unlink()
        manifest.write_text(json.dumps(content))
        expect(
            planned(project) == RESTORE, f"{planned(project)} was planned for {str(content)[:100]}"
        )
    expect_success(place.run(project, "plan"))
    make_package(place, project)
    expect(json.loads(manifest.read_text()) == right, "another manifest came back")


# Two users


def hand_over(folder: Path, user: int, group: int, dirs: int, files: int) -> None:
    """Give all in a folder an owner, a group and rights."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            os.chown(path, user, group)
            path.chmod(dirs if path.is_dir() else files | path.stat().st_mode & 0o100)


def as_user(place: Place, user: int, project: Path, mask: str, *words: str) -> Said:
    """``meetara-build WORDS`` by a user without any rights of root's."""
    home = place.folder / f"home-{user}"
    home.mkdir(exist_ok=True)
    os.chown(home, user, user)
    rights = [f"--{kind}={RIGHTS[user]}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    who = ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={GROUP}", *rights]
    started = ["sh", "-c", f'umask {mask}; exec "$@"', "sh", str(BIN / "meetara-build"), *words]
    return place.execute(project, [*who, *started], {"TMPDIR": str(home), "HOME": str(home)})


def checkouts(place: Place, mode: int, group: int) -> tuple[dict[int, Path], Path]:
    """A built checkout of each user's, and the store that they share, which is the owner's."""
    expect(os.geteuid() == 0 and shutil.which("setpriv") is not None, "only root can be two users")
    place.folder.chmod(0o755)
    place.folder.parent.chmod(0o755)
    store = place.folder / f"store-{mode:o}"
    found = {}
    for user in (OWNER, COLLEAGUE):
        project = place.project(f"{mode:o}-of-{user}", built=True)
        own = project / "artifacts" / "store"
        shutil.copytree(own, store, dirs_exist_ok=True)
        shutil.rmtree(own)
        edit(project / "conf" / "build.yaml", "store", str(store))
        hand_over(project, user, user, 0o755, 0o644)
        found[user] = project
    hand_over(store, OWNER, group, mode, mode & 0o666)
    return found, store


def is_open_to_group(path: Path) -> bool:
    """Whether all of the group can read a file of the store's, or write a folder of it."""
    state = path.stat()
    if path.is_dir():
        return state.st_gid == GROUP and state.st_mode & stat.S_IRWXG == stat.S_IRWXG
    return bool(state.st_mode & (stat.S_IRGRP if state.st_gid == GROUP else stat.S_IROTH))


def last_outcome(place: Place, user: int, project: Path, mask: str, text: str) -> str:
    """What came of the package that this user asks for."""
    describe(project, text)
    os.chown(project / "conf" / "domain" / f"{TRIED}.yaml", user, user)
    expect_success(as_user(place, user, project, mask, "stage", "package", TRIED))
    return str(outcomes(project)[-1][2])


@case(
    "H12",
    "a group's store serves two users, whatever their umasks: what one made the other is given, both ways",
)
def two_users(place: Place) -> None:
    projects, store = checkouts(place, 0o2770, GROUP)
    masks = {OWNER: "077", COLLEAGUE: "022"}
    turns = [
        (OWNER, "one", "built"),
        (COLLEAGUE, "one", "restored"),
        (COLLEAGUE, "two", "built"),
        (OWNER, "two", "restored"),
    ]
    for user, text, right in turns:
        came = last_outcome(place, user, projects[user], masks[user], text)
        expect(came == right, f"'{text}' by {user}: {came}")
    closed = [str(path) for path in store.rglob("*") if not is_open_to_group(path)]
    expect(not closed, f"not the group's: {closed[:3]}")


@case(
    "H12b",
    "a store that others may read serves them; one that they may not is named with whose it is and what to do",
)
def store_of_another(place: Place) -> None:
    projects, store = checkouts(place, 0o755, OWNER)
    expect(last_outcome(place, OWNER, projects[OWNER], "022", "one") == "built", "the owner's own")
    came = last_outcome(place, COLLEAGUE, projects[COLLEAGUE], "022", "one")
    expect(came == "restored", f"{came} by who may only read")
    hand_over(store, OWNER, OWNER, 0o700, 0o600)
    for words in (["plan"], ["stage", "package", TRIED]):
        describe(projects[COLLEAGUE], "three")
        said = as_user(place, COLLEAGUE, projects[COLLEAGUE], "022", *words)
        expect_refusal(said, str(store), "cannot be read", "chmod")
        expect("cannot be written" not in said.text, said.text)


# A full disk


@contextlib.contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Callable[[int], None]]:
    """A folder on a disk of its own, and what gives it another size."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=755", "tmpfs", str(folder)]
    expect(subprocess.run(mount, check=False).returncode == 0, "only root can mount a small disk")

    def resize(to: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={to}k", str(folder)], check=True)

    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def contents(folder: Path) -> Mapping[str, bytes]:
    """Every file of a package but its manifest."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.is_file() and path.name != MANIFEST
    }


@case(
    "H15",
    "a full disk of the store's is named as the store's, leaves no half file, and with room all goes on",
)
def full_store(place: Place) -> None:
    project = place.project(built=True)
    describe(project, "The same of a store with room")
    make_package(place, project)
    package = package_of(project)[2]
    right = contents(package)
    describe(project, "Another")
    make_package(place, project)
    store = place.folder / "small"
    with disk(store, 8) as resize:
        edit(project / "conf" / "build.yaml", "store", str(store))
        describe(project, "The same of a store with room")
        for _ in range(2):
            said = place.run(project, "stage", "package", TRIED)
            expect_refusal(said, str(store), "No space left", "make room")
            expect(f"{project / 'artifacts'}: cannot be written" not in said.text, said.text)
            halves = [
                path for path in store.rglob("*") if path.is_file() and path.name.startswith(".")
            ]
            expect(not halves, f"left in the store: {halves}")
        resize(200_000)
        make_package(place, project)
        expect(contents(package) == right, "other bytes than with room from the first")
