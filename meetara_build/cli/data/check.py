"""Read the sources of domains, and list every bad record.

And what is left out and why, and what a build would refuse.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.progress import Progress

from meetara_build.cli.options import Domains, Json
from meetara_build.cli.output import out, print_json, progress
from meetara_build.cli.tokenizer import find_tokenizer, not_measured
from meetara_build.engine.planning import project_graph, select_domains
from meetara_build.errors import DataError
from meetara_build.graph import Graph, Step

if TYPE_CHECKING:
    from meetara_build.stages.dataset import Examined


def check(domains: Domains = None, as_json: Json = False) -> None:
    """Print every bad record of the domains' sources, what a build would leave out, and why it
    would refuse them, if it would.

    Raises:
        Exit: with 1, where something is wrong.
    """
    graph = project_graph()
    names = select_domains(graph, domains or []) or graph.domains
    examined: dict[str, Examined] = {}
    unusable: dict[str, str] = {}
    unmeasured: dict[str, None] = {}
    tokenizers: dict[str, Any] = {}
    with progress() as bar:
        for domain in bar.track(names, description="reading"):
            step = graph.step("dataset", domain)
            base = graph.step("base", step.inputs["base"].target)
            if base.target not in tokenizers:
                tokenizers[base.target] = find_tokenizer(graph, base)
            if tokenizers[base.target] is None:
                unmeasured[base.recipe["name"]] = None
            try:
                examined[domain] = _examine(step, tokenizers[base.target], bar)
            except DataError as fault:
                unusable[domain] = str(fault)
    refused = unusable | {
        domain: found.refusal for domain, found in examined.items() if found.refusal
    }
    if as_json:
        _print_examined_json(len(names), examined, refused, list(unmeasured))
    else:
        _print_examined(graph, len(names), examined, refused, list(unmeasured))
    if refused or any(found.faults for found in examined.values()):
        raise typer.Exit(1)


def _examine(step: Step, tokenizer: Any, bar: Progress) -> "Examined":
    from meetara_build.stages.dataset import examine, find_taught, read_all
    from meetara_build.stages.recipes.dataset import DatasetRecipe

    recipe = DatasetRecipe.model_validate(step.recipe)
    paths = {name: Path(path) for name, path in step.sources.items()}
    sources = read_all(recipe, paths)

    def tell(what: str, share: float) -> None:
        bar.update(bar.task_ids[0], description=f"{step.target}: {what} {share:.0%}")

    return examine(recipe, sources, tokenizer, tell, find_taught(paths))


def _print_examined_json(
    checked: int,
    examined: Mapping[str, "Examined"],
    refused: Mapping[str, str],
    unmeasured: Sequence[str],
) -> None:
    print_json(
        {
            "checked": checked,
            "faults": {
                domain: [fault.as_json() for fault in found.faults]
                for domain, found in examined.items()
                if found.faults
            },
            "errors": refused,
            "losses": {
                domain: found.losses._asdict()
                for domain, found in examined.items()
                if found.losses.left_out
            },
            "notes": {domain: found.notes for domain, found in examined.items() if found.notes},
            "bases_not_here": unmeasured,
        }
    )


def _print_examined(
    graph: Graph,
    checked: int,
    examined: Mapping[str, "Examined"],
    refused: Mapping[str, str],
    unmeasured: Sequence[str],
) -> None:
    from meetara_build.stages.dataset.check import table as fault_table

    lines = []
    for domain, found in examined.items():
        listed = fault_table(found.faults) if found.faults else ""
        if listed and listed not in refused.get(domain, ""):
            lines.append(f"{domain}: {len(found.faults)} faults\n{listed}")
        if found.losses.left_out and domain not in refused:
            lines.append(f"{domain}: {found.losses.text(graph.step('dataset', domain).recipe)}")
        for note in found.notes:
            lines.append(f"{domain}: {note}")
    for domain, reason in refused.items():
        lines.append(f"{domain}: a build refuses these data: {reason.removeprefix(f'{domain}: ')}")
    for base in unmeasured:
        lines.append(not_measured(base))
    for line in lines:
        out.print(line)
    # A refusal for bad records is those records once more.
    count = sum(max(len(found.faults), domain in refused) for domain, found in examined.items())
    count += len(refused.keys() - examined.keys())
    out.print(
        f"{checked} domains read, {count} faults" + ("; mend the lines above" if count else "")
    )
