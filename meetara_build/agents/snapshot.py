"""What agents see: the configuration, the runs of the past and the context's sections, as they are
at one moment.

All of it is read-only, and nothing of it knows what time it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from meetara_build.config.keys import is_within
from meetara_build.outside import parse_json
from meetara_build.stages.text_similarity import Similar, rank_similar


@dataclass(frozen=True)
class Run:
    """A stage run that has ended. ``time`` is Unix time, memory MB, size bytes; ``recipe`` the keys
    that decided the result; ``error`` and ``code`` say why it failed, for people and for programs
    (see errors.py)."""

    id: str
    time: float
    domain: str
    stage: str
    build: str
    machine: str
    hardware: str
    outcome: str
    seconds: float
    cpu_seconds: float
    peak_mb: float
    size: int
    fingerprint: str
    key: str
    usd: float
    metrics: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    code: str = ""

    def value(self, key: str) -> Any:
        """A key of the recipe, dotted as in conf/build.yaml; None where this stage does not read
        it."""
        found: Any = self.recipe
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found


def read_run(row: Mapping[str, Any]) -> Run:
    """A run from a row of the shared context, which may have more than agents see."""
    return Run(**{one.name: row[one.name] for one in fields(Run) if one.name in row})


@dataclass(frozen=True)
class Domain:
    """A domain as it is configured now.

    Attributes:
        config: every key that an overlay could set, dotted, with its value; ``base`` and
            ``hardware`` are names.
        model: facts of the base: parameters, and its sizes where they are known.
        machine: facts of the hardware file.
        locked: keys, or beginnings of keys, that no agent may change.
        decisions: what the domain's overlay holds already.
        folder: of the domain's artifacts.
        sources: its data files.
        decided: which runs its artifacts are of: the key of the work, by stage; a stage that is not
            built is missing.
    """

    name: str
    category: str
    description: str
    topics: Sequence[str]
    languages: Sequence[str]
    config: Mapping[str, Any]
    model: Mapping[str, Any]
    machine: Mapping[str, Any]
    locked: Sequence[str]
    decisions: Sequence[Mapping[str, Any]]
    folder: Path
    sources: Sequence[Path]
    decided: Mapping[str, str]

    def is_locked(self, key: str) -> bool:
        """Whether a person has locked a key, or a section that it is in."""
        return is_within(key, self.locked)

    def read(self, name: str) -> Any:
        """What is in one of the artifact's JSON or JSON-lines files, ``adapter/training.json``;
        None where it is not built."""
        try:
            text = (self.folder / name).read_text(encoding="utf-8")
            if name.endswith(".jsonl"):
                return [parse_json(line) for line in text.splitlines() if line.strip()]
            return parse_json(text)
        except (OSError, ValueError):
            return None


@dataclass(frozen=True)
class Context:
    """Everything an agent may know.

    Attributes:
        runs: stage runs, oldest first.
        sections: the context's four sections, by name.
        messages: what agents told each other, oldest first, each with its answers.
        records: by agent, how its proposals fared: see ``record.Record``.
        settings: what build.yaml's ``agents.settings`` holds for this agent.
        policy: build.yaml's ``agents`` section.
        tuning: build.yaml's ``tuning`` section: the keys that tuning may try, and which values of
            each.
        slots: threads of jobs that run side by side.
        usd_per_hour: the machine's price; zero for one's own.
        passed_over: by sender, what was wrong with a message of theirs that nobody can read.
        similarities: how alike each two domains are; None where that is worked out when it is first
            asked for.
    """

    domains: Mapping[str, Domain]
    runs: Sequence[Run] = ()
    sections: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Mapping[str, Any]] = ()
    records: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    tuning: Mapping[str, Any] = field(default_factory=dict)
    slots: int = 1
    usd_per_hour: float = 0.0
    passed_over: Mapping[str, str] = field(default_factory=dict)
    similarities: Mapping[str, Mapping[str, float]] | None = None

    def runs_of(self, domain: str, stage: str, outcome: str | None = "built") -> list[Run]:
        """The runs of a step, oldest first; of any outcome, if None."""
        found = self._by_step.get((domain, stage), ())
        return [run for run in found if outcome is None or run.outcome == outcome]

    def current(self, domain: str, stage: str) -> Run | None:
        """The run that worked out what a domain's artifact of this stage is now."""
        key = self.domains[domain].decided.get(stage)
        return next(
            (run for run in reversed(self.runs_of(domain, stage)) if key and run.key == key), None
        )

    def similar(self, domain: str, count: int = 5) -> list[Similar]:
        """The domains most like one, by their data (see meetara_build.graph.domain_similarity), the
        most similar first."""
        return rank_similar(domain, self._similarities[domain], count)

    @cached_property
    def _by_step(self) -> dict[tuple[str, str], list[Run]]:
        found: dict[tuple[str, str], list[Run]] = {}
        for run in self.runs:
            found.setdefault((run.domain, run.stage), []).append(run)
        return found

    @cached_property
    def _similarities(self) -> Mapping[str, Mapping[str, float]]:
        if self.similarities is not None:
            return self.similarities
        from meetara_build.graph.domain_similarity import similarities  # which loads the schema

        sources = {name: domain.sources for name, domain in self.domains.items()}
        root = next((domain.folder.parent for domain in self.domains.values()), None)
        return similarities(sources, self.policy.get("embedding_model"), root)


def with_settings(context: Context, settings: Mapping[str, Any]) -> Context:
    """A context as one agent sees it; similarities, which several ask for, are worked out once."""
    return replace(context, settings=settings, similarities=context._similarities)


def _shallow(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def as_json(context: Context) -> dict[str, Any]:
    """A context for an agent in another process or language."""
    content = _shallow(context)
    del content["similarities"]
    return {
        **content,
        "domains": {
            name: {
                **_shallow(domain),
                "folder": str(domain.folder),
                "sources": [*map(str, domain.sources)],
            }
            for name, domain in context.domains.items()
        },
        "runs": [_shallow(run) for run in context.runs],
        "messages": list(context.messages),
    }


def pick_values(keys: Iterable[str], content: Mapping[str, Any]) -> dict[str, Any]:
    """The values of dotted keys in a nested mapping."""
    found = {}
    for key in keys:
        value: Any = content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        found[key] = value
    return found
