"""What the Snakefile's rules need to know: file names and resources from the graph, and from the
plan what is to do.

Snakemake finds to do what the plan says, no more and no less, by one means: every job has the file
``.meetara/stale`` among its inputs, which is newer than the results of what is to do; all inputs of
what is fresh are ``ancient``. So it needs no records of its own for it, and what someone touched,
copied with old times or damaged is seen as the plan sees it.
"""

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.config.overrides import read_overrides
from meetara_build.engine.backfill import preserve, unseal
from meetara_build.graph import Graph, Step, load
from meetara_build.graph.stages import (
    ABOVE_BASES,
    ABOVE_BUNDLES,
    ALL,
    BUNDLE,
    NAMES,
    REPORT,
    RULES,
    STAGES,
    Stage,
)
from meetara_build.outside import quote_command
from meetara_build.plan import FRESH, MAYBE, Item, plan
from meetara_build.plan.inventory import Sight
from meetara_build.project import CACHE, find_project
from meetara_build.store import journal
from meetara_build.store.manifest import MANIFEST, write_text

Value = Callable[[Any], Any]
"""A Snakemake input function: wildcards in, value out."""


STALE = f"{CACHE}/stale"
LINK = f"{CACHE}/root"
PLAIN = re.compile(r"[\w./-]+")
"""Names in which neither Snakemake nor a shell sees anything but a name."""


class Variant(NamedTuple):
    """Targets of a stage whose jobs declare the same files.

    ``temporary`` is the folder that goes once it was read, where the artifact is such.
    """

    name: str
    targets: list[str]
    outputs: list[str]
    temporary: str | None

    @property
    def wildcard(self) -> str:
        """The targets as a wildcard's constraint."""
        return "|".join(self.targets)


def root_name(graph: Graph) -> str:
    """The root as Snakemake's files name it: seen from the project, in which Snakemake runs.

    Braces in a name would be Snakemake's own, and can be quoted nowhere in it: such a root is named
    by a link to it.
    """
    inside = graph.root.is_relative_to(graph.project)
    name = os.path.relpath(graph.root, graph.project) if inside else str(graph.root)
    return name if PLAIN.fullmatch(name) else _link_root(graph)


def _link_root(graph: Graph) -> str:
    link = graph.project / LINK
    graph.root.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink() or link.readlink() != graph.root:
        new = link.with_name(f"{link.name}-{os.getpid()}")
        new.symlink_to(graph.root)
        new.replace(link)
    return LINK


def _wildcard(row: Stage) -> str:
    """The name of a stage's targets as Snakemake's files have it."""
    if row.of in (ALL, BUNDLE):
        return "" if row.of == ALL else "{bundle}"
    return "{base}" if row.is_base else "{domain}"


def _target(row: Stage, opening: str = "{") -> str:
    """A stage's targets; braces open as said."""
    above = ABOVE_BASES if row.is_base else ABOVE_BUNDLES if row.of == BUNDLE else ""
    return f"{above}{_wildcard(row).replace('{', opening)}" or REPORT


class Rules:
    """A project's graph and plan in Snakemake's terms."""

    stages = NAMES
    """The stages, each of which has a file of rules."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        os.environ.setdefault(journal.BUILD, journal.new_build())
        self.hardware: str | None = config.get("hardware")
        overrides = read_overrides(config.get("overrides"))
        self.graph: Graph = load(find_project(Path.cwd()), self.hardware, overrides)
        sight = Sight(self.graph)
        made = plan(self.graph, sight=sight, bundles=True)
        sight.save()
        preserve(self.graph, made)
        unseal(self.graph, made)
        self.items = {(item.step.stage, item.step.target): item for item in made.items}
        self._mark_stale(made.to_do())
        self.root = root_name(self.graph)
        self.domains = self.graph.domains
        self.bases = sorted(
            {
                target.removeprefix(ABOVE_BASES)
                for _, target in self.graph.steps
                if target.startswith(ABOVE_BASES)
            }
        )
        self.bundles = sorted(name.removeprefix(ABOVE_BUNDLES) for name in self.graph.bundles)
        self.usd_per_hour = self._price(config.get("provider"))
        self.command = self._command(str(config.get("warm", True)).lower() in ("true", "1", "yes"))

    def _price(self, provider: str | None) -> float | None:
        """US dollars an hour of the machine that jobs run on; None for one's own."""
        if provider is None:
            return None
        from meetara_build.config.prices import provider_prices

        return provider_prices(self.graph.project, provider).get(self.graph.machines[""])

    def _command(self, warm: bool) -> str:
        words = ["exec", sys.executable, "-m", "meetara_build", "stage"]
        words += [] if warm else ["--cold"]
        words += ["--hardware", self.hardware] if self.hardware else []
        if self.graph.overrides.words:
            words += ["--overrides", self.graph.overrides.as_text()]
        words += ["--usd-per-hour", str(self.usd_per_hour)] if self.usd_per_hour else []
        # exec makes Snakemake the job's parent: with it, however that happens, the job ends too.
        return f"{quote_command(*words)} --parent $PPID"

    def shell(self, rule: str) -> str:
        """A rule's shell command, with Snakemake's own braces left for it to fill."""
        row, command = RULES[rule], self.command.replace("{", "{{").replace("}", "}}")
        target = _target(row, "{wildcards.")
        return (
            f"{command} {row.name} {target} --fingerprint {{params.fingerprint}} > {{log:q}} 2>&1"
        )

    def outputs(self, rule: str) -> list[str]:
        """The files of a rule whose targets all declare the same."""
        variants = self.variants(rule)
        assert len(variants) < 2, f"{rule}: its targets declare different files; see variants()"
        return variants[0].outputs if variants else self._list_declared(RULES[rule], ())

    def output(self, rule: str, name: str) -> str:
        """One of these, which Snakemake is to show."""
        (found,) = [path for path in self.outputs(rule) if path.endswith(f"/{name}")]
        return found

    def log(self, rule: str) -> str:
        """The log of a rule's jobs."""
        row = RULES[rule]
        return f"{self.root}/{row.log(_target(row))}.log"

    def variants(self, rule: str) -> list[Variant]:
        """The targets of a rule, by what their jobs declare: a domain's GGUF files, a merged model
        that is kept or goes."""
        row, found = RULES[rule], dict[tuple[tuple[str, ...], bool], list[str]]()
        for (stage, target), step in sorted(self.graph.steps.items()):
            if stage == row.name and step.row is row:
                name = target.rpartition("/")[2]
                files = row.list_files(_wildcard(row), step.recipe)
                found.setdefault((files, step.keep), []).append(name)
        variants = []
        for (files, kept), names in found.items():
            own = [file.removeprefix(f"{_wildcard(row)}-").partition(".")[0] for file in files]
            words = [rule, *(own if len(found) > 1 and not row.temporary else [])]
            name = "_".join([*words, *(["kept"] if kept and row.temporary else [])])
            folder = None if kept else f"{self.root}/{row.place(_target(row))}"
            variants.append(Variant(name, names, self._list_declared(row, files), folder))
        return variants

    def _list_declared(self, row: Stage, files: Iterable[str]) -> list[str]:
        return [f"{self.root}/{row.place(_target(row))}/{file}" for file in (MANIFEST, *files)]

    def inputs(self, rule: str) -> Value:
        """The files that stand for a job's inputs, and the one that is new where the job has
        something to do."""
        from snakemake.io import ancient

        def files(wildcards: Any) -> list[Any]:
            step = self._step(rule, wildcards)
            item = self.items.get((step.stage, step.target))
            above = [self.graph.step(given.stage, given.target) for given in step.inputs.values()]
            if item is None or item.action == FRESH:
                there = [self._file(given) for given in above if self._fresh(given)]
                return [ancient(file) for file in dict.fromkeys([*there, STALE])]
            given = [self._file(given) for given in above]
            return [
                *dict.fromkeys(given),
                ancient(STALE) if item.action == MAYBE and step.keep else STALE,
            ]

        return files

    def results(self, domain: str) -> list[str]:
        """What a domain is built for: its GGUF files and its package; and whatever else of it has
        something to do, since Snakemake does not look at what is not asked for."""
        models = self.graph.step("gguf", domain)
        ends = [self.graph.step(*end) for end in self.graph.ends([domain])]
        asked = [f"{self.root}/{models.place.folder}/{file}" for file in models.files]
        asked += map(self._file, ends)
        return [*asked, *(file for file in self._list_to_do(domain) if file not in asked)]

    @property
    def everything(self) -> list[str]:
        """The results of every domain, and the report over all."""
        found = [file for domain in self.domains for file in self.results(domain)]
        ends = [self.graph.step(*end) for end in self.graph.ends()]
        return list(dict.fromkeys([*found, *map(self._file, ends)]))

    def fingerprint(self, rule: str) -> Value:
        """The step's fingerprint."""
        return lambda wildcards: self._step(rule, wildcards).fingerprint

    def threads(self, rule: str) -> Value:
        """Threads of a job."""
        return lambda wildcards: self._step(rule, wildcards).threads

    def memory_mb(self, rule: str) -> Value:
        """Memory of a job, MB."""
        return lambda wildcards: self._step(rule, wildcards).memory_mb

    def priority(self, rule: str) -> Value:
        """A job's place among those that are ready, the highest first: by its domain's
        ``priority``, then by its stage's."""
        above, urgency = max(row.urgency for row in STAGES) + 1, RULES[rule].urgency
        return lambda wildcards: (
            above * self._priorities.get(self._step(rule, wildcards)[:2], 0) + urgency
        )

    @cached_property
    def _priorities(self) -> dict[tuple[str, ...], int]:
        """By stage and target: that of the most urgent domain that needs the step."""
        found: dict[tuple[str, ...], int] = {}
        for domain, priority in sorted(self.graph.priorities.items(), key=lambda one: one[1]):
            found |= {step[:2]: priority for step in self.graph.above(self.graph.ends([domain]))}
        return found

    def gpus(self, rule: str) -> Value:
        """GPUs of a job; none where it asks a trainer that has one."""
        return lambda wildcards: self._share(rule, wildcards)[0]

    def slots(self, rule: str) -> Value:
        """Slots of the machine's trainers that a job takes: all of them where it needs the device
        for itself."""
        return lambda wildcards: self._share(rule, wildcards)[1]

    def _share(self, rule: str, wildcards: Any) -> tuple[int, int]:
        step = self._step(rule, wildcards)
        if step.slots > 1:
            return 0, 1
        return step.gpus, self.graph.slots if step.gpus and self.graph.slots > 1 else 0

    def _step(self, rule: str, wildcards: Any) -> Step:
        row = RULES[rule]
        values = {name: getattr(wildcards, name) for name in wildcards.keys()}  # noqa: SIM118
        return self.graph.step(row.name, _target(row).format(**values))

    def _file(self, step: Step) -> str:
        """What stands for an artifact among Snakemake's files."""
        return f"{self.root}/{step.place.manifest if step.keep else step.place.folder}"

    def _fresh(self, step: Step) -> bool:
        item = self.items.get((step.stage, step.target))
        return item is None or item.action == FRESH

    def _list_to_do(self, domain: str) -> list[str]:
        """Manifests of what of a domain and its base has something to do, but for temporaries: they
        are made when someone asks."""
        above = self.graph.above(self.graph.ends([domain]))
        return [
            self._file(step)
            for step in above
            if step.keep
            and (step.target == domain or step.target.startswith(ABOVE_BASES))
            and not self._fresh(step)
        ]

    def _mark_stale(self, to_do: Iterable[Item]) -> None:
        """Have the stale file be new for what there is to do, and older than what a running build
        has just made.

        Snakemake compares times and, of small files, contents. A manifest from the future (the
        clock was set back) is dated now: Snakemake takes no output that is older than its inputs.
        """
        stale, now = self.graph.project / STALE, time.time()
        again = {item.step.place.manifest for item in to_do}
        newest = 0.0
        for step in self.graph.steps.values() if again else ():
            path = self.graph.root / step.place.manifest
            with contextlib.suppress(OSError):
                changed = os.stat(path).st_mtime
                if changed > now:
                    os.utime(path, (now - 1, now - 1))
                if step.place.manifest in again:
                    newest = max(newest, min(changed, now - 1))
        locks = self.graph.project / ".snakemake" / "locks"
        running = locks.is_dir() and any(locks.iterdir())
        if (
            not stale.exists()
            or (again and not running)
            or not newest < stale.stat().st_mtime <= now
        ):
            write_text(stale, f"{time.time_ns()}\n")
