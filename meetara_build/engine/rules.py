"""What the Snakefile's rules need to know of the graph: file names and resources, as functions of the wildcards."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from meetara_build.graph import REPORT, Graph, Step, find_project, load

Value = Callable[[Any], Any]
"""A Snakemake input function: wildcards in, value out."""


class Gguf(NamedTuple):
    """Domains whose GGUF folders hold the same kinds of files, and these files' names."""

    domains: list[str]
    files: list[str]

    @property
    def name(self) -> str:
        """The rule's name: the kinds of files it makes."""
        return "_".join(["gguf", *(file.removeprefix("{domain}-").removesuffix(".gguf") for file in self.files)])

    @property
    def wildcard(self) -> str:
        """The domains as a wildcard's constraint."""
        return "|".join(self.domains)


def root_name(graph: Graph) -> str:
    """The root as Snakemake's files name it: seen from the project, in which Snakemake runs."""
    return os.path.relpath(graph.root, graph.project) if graph.root.is_relative_to(graph.project) else str(graph.root)


class Rules:
    """A project's graph in Snakemake's terms."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.hardware: str | None = config.get("hardware")
        self.graph: Graph = load(find_project(Path.cwd()), self.hardware)
        self.root = root_name(self.graph)
        self.domains = self.graph.domains
        self.keep_merged = all(step.keep for step in self.graph.steps.values())
        self.bases = sorted(
            {target.removeprefix("base/") for _, target in self.graph.steps if target.startswith("base/")}
        )
        self.command = self._command(str(config.get("warm", True)).lower() in ("true", "1", "yes"))

    def _command(self, warm: bool) -> str:
        words = ["exec", sys.executable, "-m", "meetara_build", "stage"]
        words += [] if warm else ["--cold"]
        words += ["--hardware", self.hardware] if self.hardware else []
        # exec makes Snakemake the job's parent: with it, however that happens, the job ends too.
        return f"{shlex.join(words)} --parent $PPID"

    def shell(self, stage: str, target: str) -> str:
        """A rule's shell command, with Snakemake's own braces left for it to fill."""
        command = self.command.replace("{", "{{").replace("}", "}}")
        return f"{command} {stage} {target} --fingerprint {{params.fingerprint}} > {{log}} 2>&1"

    @property
    def pretrained(self) -> str:
        """Constraint of the wildcard of bases that are loaded, not made here; never empty, so that it matches none."""
        return "|".join(name for name in self.bases if ("corpus", f"base/{name}") not in self.graph.steps) or "-"

    @property
    def made_here(self) -> str:
        """Constraint of the wildcard of bases that are made here."""
        return "|".join(name for name in self.bases if ("corpus", f"base/{name}") in self.graph.steps) or "-"

    def base(self, stage: str) -> Value:
        """The manifest of a stage of the base of a domain."""
        return lambda wildcards: self._manifest(stage, self._base_of(wildcards.domain))

    @property
    def merged(self) -> str:
        """What stands for a merged model: its manifest where it is kept, else its whole folder, which Snakemake deletes."""
        folder = f"{self.root}/{{domain}}/merged"
        return f"{folder}/manifest.json" if self.keep_merged else folder

    def results(self, domain: str) -> list[str]:
        """What a domain is built for: its GGUF files and its package; Snakemake sees that one is gone only if it is asked for."""
        folder = f"{self.root}/{self.graph.step('gguf', domain).place.folder}"
        models = [f"{folder}/{domain}-{kind}.gguf" for kind in self._kinds(domain)]
        return [*models, self._manifest("package", domain)]

    @property
    def everything(self) -> list[str]:
        """The results of every domain, and the report over all."""
        return [file for domain in self.domains for file in self.results(domain)] + [self._manifest("report", REPORT)]

    def fingerprint(self, stage: str) -> Value:
        """The step's fingerprint. A temporary's travels with its consumer: Snakemake forgets a deleted output's."""

        def value(wildcards: Any) -> str:
            step = self._step(stage, wildcards)
            return "-".join([step.fingerprint, *(above.fingerprint for above in self._temporary_inputs(step))])

        return value

    def threads(self, stage: str) -> Value:
        """Threads of a job."""
        return lambda wildcards: self._step(stage, wildcards).threads

    def memory_mb(self, stage: str) -> Value:
        """Memory of a job, MB."""
        return lambda wildcards: self._step(stage, wildcards).memory_mb

    def gpus(self, stage: str) -> Value:
        """GPUs of a job."""
        return lambda wildcards: self._step(stage, wildcards).gpus

    def ggufs(self) -> list[Gguf]:
        """The domains, grouped by the kinds of GGUF files that each gets."""
        members = groupby(sorted(self.domains, key=self._kinds), key=self._kinds)
        return [Gguf(list(names), [f"{{domain}}-{kind}.gguf" for kind in found]) for found, names in members]

    def _kinds(self, domain: str) -> tuple[str, ...]:
        recipe = self.graph.step("gguf", domain).recipe
        return (*dict.fromkeys(["F16", *recipe["quants"]]), *(["lora"] if recipe["lora"] else []))

    def _step(self, stage: str, wildcards: Any) -> Step:
        names = list(wildcards.keys())
        if "domain" in names:
            return self.graph.step(stage, wildcards.domain)
        return self.graph.step(stage, f"base/{wildcards.base}" if "base" in names else REPORT)

    def _base_of(self, domain: str) -> str:
        return self.graph.step("adapter", domain).inputs["base"].target

    def _manifest(self, stage: str, target: str) -> str:
        return f"{self.root}/{self.graph.step(stage, target).place.manifest}"

    def _temporary_inputs(self, step: Step) -> list[Step]:
        above = (self.graph.step(given.stage, given.target) for given in step.inputs.values())
        return [given for given in above if not given.keep]
