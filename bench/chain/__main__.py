"""``python -m bench.chain --work FOLDER [--domains A B C] [--seeds 0 1 2] [--again RECIPE]``

A whole run takes hours. Each finished domain, seed and recipe is kept below FOLDER at once, and is
not run again: a run that was interrupted goes on, and one that is called with more domains or seeds
adds them. ``--again ours`` measures ours anew, after a change, against what is kept of the others.
The recipes take turns in being first.
"""

import argparse
import tempfile
from pathlib import Path

from bench import machine
from bench.chain.recipes import (
    RECIPES,
    TRL_VARIANT,
    Material,
    Run,
    keep_run,
    prepare_material,
    read_run,
    run_recipe,
)
from bench.chain.summary import show_table, summarize_runs
from bench.chain.tools import find_converter_needs
from bench.result_files import keep_result
from bench.trainer import TRL, find_trl

DOMAINS = ("nutrition", "legal", "programming")
SEEDS = (0, 1, 2)


def main() -> None:
    """Run what is missing, and keep and print the table after each domain and seed."""
    options = parse()
    print(machine.describe(), flush=True)
    machine.adopt_orphans()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    for recipe in options.again:
        for path in (work / "runs").glob(f"{recipe}-*.json"):
            path.unlink()
    if not options.table:
        find_converter_needs(work)
        python = find_trl(options.trl_python) if "peers" in options.recipes else Path()
        material = prepare_material(work, options.domains, options.threads, python)
        run_missing(options, material)
    runs = [read_run(path) for path in sorted((work / "runs").glob("*.json"))]
    figures = summarize_runs(runs)
    print(show_table(figures))
    if figures["cells"]:
        about = {
            "threads": options.threads,
            "beside": options.beside,
            "trl": TRL[1].partition("==")[2],
        }
        keep_result("chain", {**about, "trl_variant": TRL_VARIANT, **figures})


def parse() -> argparse.Namespace:
    """What is asked for."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--work", type=Path, required=True, help="the folder that a run goes on in")
    words.add_argument("--domains", nargs="+", default=DOMAINS)
    words.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    words.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    words.add_argument("--again", nargs="+", choices=RECIPES, default=[], help="measure anew")
    words.add_argument("--table", action="store_true", help="run nothing: only what is kept")
    words.add_argument("--threads", type=int, default=1, help="of every process of every recipe")
    words.add_argument("--beside", default="nothing that was told", help="what else ran")
    words.add_argument(
        "--trl-python",
        type=Path,
        default=Path(tempfile.gettempdir()) / "trl-venv" / "bin" / "python",
        help="a Python that has TRL; its virtual environment is made if it is missing",
    )
    return words.parse_args()


def run_missing(options: argparse.Namespace, material: Material) -> None:
    """Every recipe for every domain and seed that has no file yet."""
    for number, (domain, seed) in enumerate(
        (domain, seed) for seed in options.seeds for domain in options.domains
    ):
        for recipe in rotate_recipes(number):
            path = options.work / "runs" / f"{recipe}-{domain}-{seed}.json"
            if recipe in options.recipes and not path.exists():
                run = run_recipe(recipe, domain, seed, material, options.work)
                keep_run(path, run)
                show_run(run)


def rotate_recipes(number: int) -> tuple[str, ...]:
    """The recipes in the order of the so manieth domain and seed."""
    place = number % len(RECIPES)
    return (*RECIPES[place:], *RECIPES[:place])


def show_run(run: Run) -> None:
    """A line for a run that has ended."""
    parts = ", ".join(f"{name} {cost:.1f}" for name, cost in run.parts.items())
    losses = {name: sum(nats) / sum(run.tokens) for name, nats in run.nats.items()}
    told = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
    print(
        f"{run.recipe} {run.domain} seed {run.seed}: {sum(run.parts.values()):.0f} CPU-s in "
        f"{run.seconds:.0f} s ({parts}), {run.peak_mb:.0f} MB; {told}",
        flush=True,
    )


if __name__ == "__main__":
    main()
