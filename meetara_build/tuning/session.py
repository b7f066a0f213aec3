"""One ``meetara-build tune``: from a domain to its best settings, and whether they are worth a
decision."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from optuna.study import Study
from optuna.trial import FrozenTrial

from meetara_build.agents.proposal import Proposal
from meetara_build.agents.snapshot import Run, read_run
from meetara_build.config.keys import is_within
from meetara_build.config.resolve import Configuration, Resolved
from meetara_build.context.delivery import Context as Shared
from meetara_build.errors import ConfigError, TrainingError
from meetara_build.graph import Graph
from meetara_build.graph.domain_similarity import similar_domains
from meetara_build.rounds.gathering import LOOK_BACK
from meetara_build.store.manifest import read_manifest
from meetara_build.tuning import search, studies, verdict
from meetara_build.tuning.seeding import NEIGHBOURS, Start, collect_starts, starts
from meetara_build.tuning.space import Settings, Space, apply_settings, read_space
from meetara_build.tuning.studies import SETTINGS, best, find_tried, list_finished, steps_taken
from meetara_build.tuning.workers import Task, Told, take_trials, train_each

REPEAT = "repeat "
"""How the names begin under which a study keeps what further seeds gave."""


class Found(NamedTuple):
    """What a search found.

    Attributes:
        left_out: keys of the space that may not be changed here.
        starts: what was tried because it did well on similar domains.
        now, settings: the current settings, and the winner's.
        current, winner: their losses with the search's own seed.
        repeats, gain: None where the current settings are the best.
    """

    study: Study
    left_out: list[str]
    starts: list[Start]
    now: Settings
    settings: Settings
    number: int
    current: float
    winner: float
    steps: int
    repeats: verdict.Repeats | None
    gain: verdict.Gain | None
    proposals: list[Proposal]


class Tuning:
    """The search of one domain, made ready: its inputs are built."""

    def __init__(self, graph: Graph, configuration: Configuration, domain: str) -> None:
        """Read what is searched.

        Raises:
            ConfigError: the space names what cannot be searched, or all of it is locked.
            ArtifactError: the dataset or the base is not built.
        """
        self.graph, self.domain = graph, domain
        self.step = graph.step("adapter", domain)
        self.recipe = self.step.recipe
        self.space, self.left_out = make_space(graph, configuration, domain)
        tuning = configuration.build.tuning
        self.reduction_factor = tuning.reduction_factor
        self.base = self._base_of(domain)
        self.url = studies.studies_url(graph.root, graph.context)
        inputs = {
            name: read_manifest(graph.root / given.place.manifest).digest(given.reads)
            for name, given in self.step.inputs.items()
        }
        inputs |= self.step.made_from["sources"]
        name = studies.study_name(domain, self.recipe, inputs, self.space)
        about = {"domain": domain, "base": self.base, "inputs": inputs}
        self.storage = studies.open_storage(self.url)
        self.study = studies.open_study(self.storage, name, about)

    def run(
        self,
        shared: Shared,
        trials: int,
        workers: int,
        ends: float | None,
        listen: Callable[[Told], None],
    ) -> Found:
        """Search until the study has so many trials, and judge the best.

        Raises:
            TrainingError: the current configuration cannot be trained.
        """
        known = self._starts(shared)
        search.prepare(self.study, self.space, known)
        missing = trials - len(list_finished(self.study))
        if missing > 0:
            take_trials(self._task(ends), missing, workers, listen)
        return self._judge(known, listen)

    def _starts(self, shared: Shared) -> list[Start]:
        alike = [
            one.domain for one in similar_domains(self.graph, self.domain, len(self.graph.domains))
        ]
        own_base = [name for name in alike if self._base_of(name) == self._base_of(self.domain)]
        runs: dict[str, list[Run]] = {}
        for row in shared.history(LOOK_BACK)["runs"]:
            if row["stage"] == "adapter":
                runs.setdefault(row["domain"], []).append(read_run(row))
        known = collect_starts(self.storage, self.base)
        return starts(self.space, known, runs, own_base[:NEIGHBOURS])

    def _base_of(self, domain: str) -> str:
        return self.graph.step("adapter", domain).inputs["base"].target

    def _task(self, ends: float | None) -> Task:
        inputs = {
            name: self.graph.root / given.place.folder for name, given in self.step.inputs.items()
        }
        inputs |= {name: Path(path) for name, path in self.step.sources.items()}
        log = self.graph.root / "logs" / self.domain / "tune.log"
        return Task(
            self.url,
            self.study.study_name,
            self.space,
            self.recipe,
            inputs,
            self.reduction_factor,
            ends,
            log,
        )

    def _judge(self, known: list[Start], listen: Callable[[Told], None]) -> Found:
        trials = list_finished(self.study)
        current, top = find_tried(trials, self.space.current), best(trials)
        if current is None or top is None or current.value is None or top.value is None:
            raise TrainingError(
                f"{self.domain}: the current configuration has not been tried yet; give --trials "
                "or --seconds more room"
            )
        settings = top.user_attrs[SETTINGS]
        repeats = gained = None
        changes: list[Proposal] = []
        if top.value < current.value:
            repeats = self._repeat_best(current, top, listen)
            gained = verdict.gain(repeats)
        steps = steps_taken(trials) + sum(steps for _, steps in self._read_repeats().values())
        if repeats and gained and gained.beyond_noise:
            evidence = (
                f"study {self.study.study_name}, trial {top.number} of {len(trials)}",
                f"{steps} training steps in all",
            )
            changes = verdict.proposals(
                self.domain, self.space.current, settings, repeats, gained, evidence
            )
        return Found(
            self.study,
            self.left_out,
            known,
            self.space.current,
            settings,
            top.number,
            current.value,
            top.value,
            steps,
            repeats,
            gained,
            changes,
        )

    def _repeat_best(
        self, current: FrozenTrial, top: FrozenTrial, listen: Callable[[Told], None]
    ) -> verdict.Repeats:
        """The losses of both with further seeds; each is trained once, and kept."""
        own = int(self.recipe["seed"])
        seeds = [own + more for more in range(1, verdict.MORE_SEEDS + 1)]
        wanted = [(trial, seed) for seed in seeds for trial in (current, top)]
        missing = [
            (trial, seed)
            for trial, seed in wanted
            if _repeat(trial, seed) not in self.study.user_attrs
        ]
        recipes = [
            {**apply_settings(self.recipe, trial.user_attrs[SETTINGS]), "seed": seed}
            for trial, seed in missing
        ]

        def keep(told: Told) -> None:
            trial, seed = missing[told.number]
            self.study.set_user_attr(_repeat(trial, seed), [told.loss, told.steps])
            listen(told._replace(what=f"trial {trial.number} again, seed {seed}"))

        if missing:
            train_each(self._task(None), recipes, keep)
        kept = self._read_repeats()
        current_losses, top_losses = (
            [float(trial.value or 0.0), *(kept[_repeat(trial, seed)][0] for seed in seeds)]
            for trial in (current, top)
        )
        return verdict.Repeats([own, *seeds], current_losses, top_losses)

    def _read_repeats(self) -> dict[str, tuple[float, int]]:
        return {
            key: tuple(value)
            for key, value in self.study.user_attrs.items()
            if key.startswith(REPEAT)
        }


def make_space(graph: Graph, configuration: Configuration, domain: str) -> tuple[Space, list[str]]:
    """What is searched for a domain, and the keys of the space that may not be changed for it.

    Raises:
        ConfigError: the space names what cannot be searched, or nothing is left of it.
    """
    item, path = configuration.resolve(domain), configuration.path
    whole = read_space(
        configuration.build.tuning.space, graph.step("adapter", domain).recipe, str(path)
    )
    left_out = [key for key in whole.current if not _may_change(configuration, item, key)]
    if len(left_out) == len(whole.current):
        raise ConfigError(
            f"{path}: tuning.space: every key is locked for {domain}, or not among "
            "agents.may_change; unlock one, or name others"
        )
    return whole.without(left_out), left_out


def _repeat(trial: FrozenTrial, seed: int) -> str:
    """The name under which a study keeps a repeat."""
    return f"{REPEAT}{trial.number} {seed}"


def _may_change(configuration: Configuration, item: Resolved, key: str) -> bool:
    """Whether neither the build nor the domain locks a key, and agents may change it at all."""
    locked = [*configuration.build.locked, *item.domain.locked]
    return not is_within(key, locked) and is_within(key, configuration.build.agents.may_change)
