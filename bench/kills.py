"""Kills at random moments of a real build: each time the next build ends, and its files equal an
undisturbed build's.

python -m bench.kills [--kills 200] [--seed 1] [--minutes M]

Each trial copies a project whose base is built, starts `meetara-build build` or
`snakemake all_domains` on its domains, sends SIGKILL to the build or a part of it one to seven
times, starting the build again in between, and lets it end.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import machine
from bench.result_files import keep_result
from meetara_build.errors import ArtifactError
from meetara_build.store.manifest import digest_file, faults, read_manifest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from commands import processes, snakemake, start, until
from projects import copy_built, edit, read_yaml, small_project, write_yaml

DOMAINS = ("nutrition", "storytelling")
GROUP, SNAKEMAKE, COMMAND, CLIENT, JOB, WARM = VICTIMS = (
    "the whole process group",
    "snakemake alone",
    "meetara-build alone",
    "one `meetara-build stage`",
    "one forked job",
    "the warm process",
)
ENDS_THE_BUILD = (GROUP, SNAKEMAKE, COMMAND)
MARKS = {SNAKEMAKE: "-m snakemake", CLIENT: "meetara_build stage"}
SMALL = {
    "training.max_steps": 4,
    "training.checkpoint_seconds": 1,
    "evaluation.max_records": 2,
    "gguf.imatrix.enabled": False,
}
PLAIN_SHARE = 0.4  # of the trials, those in which what is killed first is Snakemake started by hand
MOST_KILLS = 7  # in one trial; where a build ends before its kill, there are fewer
RETRY_SECONDS = (
    0.3  # a victim that is not there at the moment drawn is looked for again after up to this long
)
GONE_SECONDS, IDLE_SECONDS, END_SECONDS = 10, 60, 120


@dataclass
class Build:
    """A running build, and how often it was hit."""

    process: subprocess.Popen[str]
    plain: bool
    began: float = field(default_factory=time.monotonic)
    hits: int = 0


def prepare(folder: Path, temporary: Path) -> Path:
    """A project whose base is built and whose domains take seconds."""
    with contextlib.redirect_stdout(io.StringIO()):
        project = small_project(folder, DOMAINS)
    for key, value in SMALL.items():
        edit(project / "conf" / "build.yaml", key, value)
    for domain in DOMAINS:
        path = project / "conf" / "domain" / f"{domain}.yaml"
        content = read_yaml(path)
        sources = [{**source, "limit": 40} for source in content["sources"]]
        write_yaml(path, {**content, "sources": sources, "quants": ["Q8_0"]})
    done = snakemake(project, "artifacts/base/mini/gguf/manifest.json", TMPDIR=str(temporary))
    if done.returncode:
        raise SystemExit(f"the base cannot be built:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return project


def digests(project: Path) -> dict[str, str]:
    """sha256 of every file of every artifact that is kept, measured figures left out.

    Raises:
        ArtifactError: a manifest is damaged, or a file is not what its manifest says.
    """
    found = {}
    for path in sorted((project / "artifacts").rglob("*manifest.json")):
        if {"store", ".work", "merged"} & set(path.parts):
            continue
        manifest = read_manifest(path)
        if damaged := faults(path.parent, manifest):
            raise ArtifactError("; ".join(damaged))
        for name, entry in manifest.files.items():
            found[str((path.parent / name).relative_to(project))] = entry.get(
                "content", entry["sha256"]
            )
    return found


def names(project: Path) -> set[str]:
    """All files below artifacts/ but logs, locks, reports, finished blobs, and what is named after
    the project's folder."""
    paths = [
        path.relative_to(project) for path in (project / "artifacts").rglob("*") if path.is_file()
    ]
    hidden = {"logs", ".locks", "roots", "blobs", ".outbox"}
    return {str(path) for path in paths if not hidden & set(path.parts) or path.name[0] == "."}


class Campaign:
    """Trial after trial on copies of one project, with one warm process for all until it is
    killed."""

    def __init__(self, scratch: Path, seed: int) -> None:
        self.scratch, self.temporary, self.random = scratch, scratch / "tmp", random.Random(seed)
        self.seen: Counter[str] = (
            Counter()
        )  # kills, by victim too, and other things that are counted
        self.surplus: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.temporary.mkdir()
        self.origin = prepare(scratch / "origin", self.temporary)
        clean = copy_built(self.origin, scratch / "clean")
        build = self._begin(clean)
        if self._end(build, "undisturbed") != 0:
            raise SystemExit("\n".join(self.wrong))
        self.seconds = time.monotonic() - build.began
        self.expected, self.names = digests(clean), names(clean)

    def run(self, kills: int, minutes: float) -> None:
        """Trials until so many kills have hit, or so many minutes have passed."""
        end = time.monotonic() + 60 * minutes
        while (missing := kills - self.seen["kills"]) > 0 and time.monotonic() < end:
            self._trial(min(missing, self.random.randint(1, MOST_KILLS)))
        # Without work, the last warm process ends by itself.
        self._gone(lambda: processes(self.temporary), IDLE_SECONDS, "at the end")

    def _trial(self, kills: int) -> None:
        self.seen["trials"] += 1
        name, wrong_before = f"trial-{self.seen['trials']:03}", len(self.wrong)
        project = copy_built(self.origin, self.scratch / name / "project")
        plain = self.random.random() < PLAIN_SHARE
        hits, last = self._killed_and_built(project, name, plain, kills)
        self._check(project, name)
        wrong = self.wrong[wrong_before:]
        first, how = "snakemake first; " if plain else "", "WRONG" if wrong else "as undisturbed"
        print(
            f"{name}: {first}{', '.join(hits) or 'no kill hit'}; last build {last:.1f} s: {how}",
            flush=True,
        )
        for line in [*wrong[:10], f"all is left in {project}"] if wrong else []:
            print(f"  {line}", flush=True)
        if not wrong:
            shutil.rmtree(project.parent)

    def _killed_and_built(
        self, project: Path, name: str, plain: bool, kills: int
    ) -> tuple[list[str], float]:
        """Up to so many kills, a new build at once after each that ended one; what was hit, and the
        last build's seconds."""
        hits: list[str] = []
        build = self._begin(project, plain)
        while True:
            if kills:
                kills -= 1
                victim = self._next_victim(build)
                if self._hit(build, victim, project):
                    hits.append(f"{victim} after {time.monotonic() - build.began:.1f} s")
                    if victim not in ENDS_THE_BUILD:
                        continue
            when = f"{name}: after {', '.join(hits) or 'no kill'}"
            status = self._end(build, when)
            if status == 0 or not build.hits:
                self.seen["ended"] += status == 0
                return hits, time.monotonic() - build.began
            if self.random.random() < 0.5:
                self._nothing_runs(project, when)
            build = self._begin(project)

    def _begin(self, project: Path, plain: bool = False) -> Build:
        words = (
            ["snakemake", "--profile", "conf/profile/local", "all_domains"]
            if plain
            else ["meetara_build", "build"]
        )
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env={**os.environ, "TMPDIR": str(self.temporary)},
            cwd=project,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        return Build(process, plain)

    def _end(self, build: Build, when: str) -> int:
        """Wait for a build; its status. Only one that was hit may fail, and none may end with a
        traceback."""
        try:
            said = "".join(build.process.communicate(timeout=END_SECONDS))
        except subprocess.TimeoutExpired:
            self.wrong.append(
                f"{when}: the build, or what it started, still ran {END_SECONDS} s later"
            )
            os.killpg(build.process.pid, signal.SIGKILL)
            return -1
        status = build.process.returncode
        if (status != 0 and not build.hits) or ("Traceback" in said and not build.plain):
            self.wrong.append(f"{when}: exit {status}: {said[-2000:]}")
        return status

    def _next_victim(self, build: Build) -> str:
        """The one that was killed least."""
        possible = [victim for victim in VICTIMS if not (build.plain and victim == COMMAND)]
        return min(possible, key=lambda victim: (self.seen[victim], self.random.random()))

    def _hit(self, build: Build, victim: str, project: Path) -> bool:
        """Kill the victim at a random moment; false if the build ended before."""
        wait = self.random.uniform(0, self.seconds)
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                build.process.wait(wait)
                self.seen["late"] += 1
                return False
            at_work = bool(processes(project, MARKS[CLIENT]))
            if self._kill(build, victim, project):
                build.hits += 1
                self.seen.update({"kills": 1, victim: 1, "at work": at_work, "plain": build.plain})
                return True
            wait = self.random.uniform(0, RETRY_SECONDS)

    def _kill(self, build: Build, victim: str, project: Path) -> bool:
        if victim in (GROUP, COMMAND):
            (os.killpg if victim == GROUP else os.kill)(build.process.pid, signal.SIGKILL)
            return True
        found = (
            processes(project, MARKS[victim])
            if victim in MARKS
            else self._warm(leader=victim == WARM)
        )
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            self.random.choice(found).kill()
            return True
        return False

    def _warm(self, leader: bool) -> list[psutil.Process]:
        """The warm process, which leads a session, or the jobs forked from it, which do not."""
        found = []
        for process in processes(self.temporary, "meetara_build.engine.warm"):
            with contextlib.suppress(ProcessLookupError):
                found += [process] if (os.getsid(process.pid) == process.pid) is leader else []
        return found

    def _nothing_runs(self, project: Path, when: str) -> None:
        """No process works in the project, and no job for it in the warm one."""
        self._gone(lambda: processes(project) + self._warm(leader=False), GONE_SECONDS, when)

    def _gone(self, find: Callable[[], list[psutil.Process]], seconds: float, when: str) -> None:
        with contextlib.suppress(AssertionError):
            until(lambda: not find(), seconds)
        for process in find():
            with contextlib.suppress(psutil.NoSuchProcess):
                self.wrong.append(
                    f"{when}: process {process.pid} is left: {' '.join(process.cmdline())}"
                )
                self.seen["left"] += 1
                process.kill()

    def _check(self, project: Path, name: str) -> None:
        """Whether a project that was built to its end is as an undisturbed build leaves it."""
        self._nothing_runs(project, f"{name}: at its end")
        try:
            found = digests(project)
            different = sorted(dict(found.items() ^ self.expected.items()))
            self.wrong += [
                f"{project / path}: not as the undisturbed build made it" for path in different
            ]
            self.seen["equal"] += not different
        except ArtifactError as error:
            self.wrong.append(str(error))
        blobs = [path for path in project.glob("artifacts/store/blobs/*/*") if path.name[0] != "."]
        self.wrong += [
            f"{path}: a damaged blob" for path in blobs if digest_file(path) != path.name
        ]
        self.wrong += [
            f"{path}: unfinished, and left" for path in project.glob("artifacts/.work/*/out-*")
        ]
        plan = start(project, "plan", "--detailed-exitcode", TMPDIR=str(self.temporary))
        said = "".join(plan.communicate(timeout=END_SECONDS))
        self.wrong += (
            [f"{project}: the plan is not empty, exit {plan.returncode}: {said}"]
            if plan.returncode
            else []
        )
        self.surplus.update(sorted(names(project) - self.names))


def summary(campaign: Campaign, seconds: float) -> str:
    """What a campaign showed."""
    seen, surplus = campaign.seen, campaign.surplus
    lines = [
        f"{seen['kills']} kills that hit a running build, in {seen['trials']} trials, {seconds / 60:.1f} min "
        f"({seen['late']} more came after its end and are not counted)",
        *(f"  {seen[victim]:4} {victim}" for victim in VICTIMS),
        f"  {seen['at work']:4} of all while a stage was at work, {seen['plain']} in a Snakemake started by hand",
        f"  {seen['ended']} of {seen['trials']} trials: the last build ended with exit 0",
        f"  {seen['equal']} of {seen['trials']} trials: every file equal to the undisturbed build's",
        f"  {seen['left']} processes left",
        f"  {surplus.total()} files left that an undisturbed build does not leave",
        *(f"    {name}: {count} times" for name, count in surplus.most_common(20)),
        f"  {len(campaign.wrong)} things were wrong",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the report; exit 1 if anything was wrong."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--kills", type=int, default=200, help="how many must hit a running build")
    words.add_argument("--seed", type=int, default=1, help="of moments and victims")
    words.add_argument("--minutes", type=float, default=600, help="begin no trial after so many")
    given = words.parse_args()
    began, scratch = time.monotonic(), Path(tempfile.mkdtemp(prefix="meetara-kills-"))
    print(machine.describe(), flush=True)
    try:
        campaign = Campaign(scratch, given.seed)
        print(f"an undisturbed build takes {campaign.seconds:.1f} s", flush=True)
        campaign.run(given.kills, given.minutes)
    finally:
        for process in processes(scratch, "-m meetara_build") + processes(scratch, "-m snakemake"):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    print(summary(campaign, time.monotonic() - began))
    counted = {name: campaign.seen[name] for name in ("kills", "trials", "equal", "left")}
    keep_result("kills", {**counted, "wrong": len(campaign.wrong)})
    if campaign.wrong:
        raise SystemExit(f"the folders of the trials that went wrong are in {scratch}")
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
