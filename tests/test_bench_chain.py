"""The arithmetic of ``bench.chain``: what a process took, which runs are compared, and how their
losses are pooled and paired."""

import ast
import math
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.chain import recipes, summary, workers
from bench.chain.__main__ import rotate_recipes
from bench.chain.processes import START, Account, Cost, read_said, run_command
from bench.chain.recipes import RECIPES, TYPES, Run, keep_run, read_run
from bench.chain.workers import WORKERS
from meetara_build.store.journal import Run as Journaled
from meetara_build.training.chat import Encoded


def make_run(
    recipe: str,
    nats: list[float],
    tokens: list[int],
    domain: str = "nutrition",
    seed: int = 0,
    **changed: object,
) -> Run:
    """A run whose files all have the same nats, the base twice as many."""
    losses = {"base": [2 * one for one in nats], **dict.fromkeys(TYPES, nats)}
    sizes = {"files": 10, "all": 20}
    parts = {"train": 10.0, START: 1.0}
    run = Run(recipe, domain, seed, parts, {}, 5.0, 1000.0, sizes, losses, tokens, "abcdef0")
    return run._replace(**changed)  # type: ignore[arg-type]


def make_cell(domain: str, seed: int, ours: list[float], naive: list[float]) -> list[Run]:
    """A run of each recipe on two held-out records of 10 and 30 tokens."""
    tokens = [10, 30]
    return [
        make_run("naive", naive, tokens, domain, seed),
        make_run("peers", naive, tokens, domain, seed),
        make_run("ours", ours, tokens, domain, seed),
        make_run("adapters", ours, tokens, domain, seed),
    ]


def test_only_what_every_recipe_has_finished_is_compared() -> None:
    runs = make_cell("nutrition", 0, [30, 90], [40, 100])
    runs += make_cell("legal", 0, [30, 90], [40, 100])[:2]
    figures = summary.summarize_runs(runs)
    assert (figures["cells"], figures["domains"], figures["seeds"]) == (1, ["nutrition"], [0])
    assert figures["counts"] == {"domains": 1, "seeds": 1}
    assert summary.summarize_runs(runs[3:]) == {"cells": 0}
    assert "no domain" in summary.show_table({"cells": 0})


def test_losses_are_pooled_by_tokens_and_not_by_records() -> None:
    runs = make_cell("nutrition", 0, [30, 30], [40, 100])
    assert summary.pool_loss(runs[2:], "F16") == pytest.approx(60 / 40)
    assert summary.pool_loss(runs[2:], "base") == pytest.approx(120 / 40)


def test_a_record_is_paired_with_itself_and_its_seeds_are_taken_together() -> None:
    one = make_cell("nutrition", 0, [30, 90], [40, 100])
    two = make_cell("nutrition", 1, [34, 90], [38, 100])
    pairs = summary.pair_records([one[2], two[2]], [two[0], one[0]], "F16")
    assert pairs == {("nutrition", 0): (64, 78), ("nutrition", 1): (180, 200)}


def test_runs_that_were_judged_on_other_records_are_refused() -> None:
    ours, naive = make_run("ours", [1, 2], [10, 31]), make_run("naive", [1, 2], [10, 30])
    with pytest.raises(ValueError, match="nutrition, seed 0: ours and naive"):
        summary.pair_records([ours], [naive], "F16")


def test_the_difference_is_a_share_of_the_others_loss_and_the_worst_domain_is_named() -> None:
    better = make_cell("nutrition", 0, [30, 90], [40, 100])
    worse = make_cell("legal", 0, [44, 100], [40, 100])
    found = summary.compare_losses([better[2], worse[2]], [better[0], worse[0]], "F16")
    assert found["higher_by"] == pytest.approx(264 / 280 - 1)
    assert found["by_domain"] == pytest.approx({"legal": 4 / 140, "nutrition": -20 / 140})
    assert found["worst"] == pytest.approx(4 / 140)
    assert found["low"] < found["higher_by"] < found["high"]


def test_the_interval_is_over_records_and_more_of_them_make_it_narrower() -> None:
    few = [(9.0, 10.0), (11.0, 10.0)]
    low, high = summary.draw_interval(few)
    assert (low, high) == pytest.approx((-0.1, 0.1))
    narrow = summary.draw_interval(few * 50)
    assert -0.03 < narrow[0] < 0 < narrow[1] < 0.03
    assert summary.draw_interval([(5.0, 5.0)] * 3) == (0, 0)
    assert summary.draw_interval(few) == (low, high)


def test_the_parts_of_a_mean_add_up_to_the_mean_of_the_sums() -> None:
    means = summary.average_parts([{"train": 6.0, "merge": 2.0}, {"train": 4.0}])
    assert means == {"train": 5.0, "merge": 1.0}
    assert list(means) == ["train", "merge"]
    assert summary.tell_parts({**means, "start": 0.4}) == "train 5, merge 1"


def test_what_is_made_once_a_base_counts_once_and_is_spread_over_all_domains() -> None:
    first = make_run("ours", [1], [1], shared={"base": 31.0, "gguf": 31.0})
    figures = summary.summarize_recipe([first, make_run("ours", [1], [1], "legal")])
    assert figures["cpu_seconds"] == 11
    assert figures["shared_cpu_seconds"] == 62
    assert figures["with_shared"] == 11 + 62 / summary.DOMAINS


def test_factors_are_of_sums_with_what_is_shared_and_without() -> None:
    runs = make_cell("nutrition", 0, [30, 90], [40, 100])
    runs[2] = runs[2]._replace(parts={"adapter": 4.0, START: 1.5}, shared={"base": 62.0})
    figures = summary.summarize_runs(runs)["recipes"]
    assert figures["ours"]["times_cheaper"] == pytest.approx(11 / 5.5)
    assert figures["ours"]["times_cheaper_with_shared"] == pytest.approx(11 / 6.5)
    assert figures["naive"]["times_cheaper"] == 1
    assert summary.summarize_runs(runs)["peers_by_ours"] == pytest.approx(11 / 6.5)
    assert "adapter 4" in summary.show_table(summary.summarize_runs(runs))


def test_stages_are_read_from_the_journal_whatever_they_are_called() -> None:
    def record(stage: str, target: str, cpu: float) -> Journaled:
        return Journaled(stage, target, "", "built", 0, 0, cpu, 0, 0, 0, "")

    own, shared = recipes.split_journal(
        [
            record("base", "base/smollm2_135m", 30),
            record("dataset", "legal", 1),
            record("a_new_stage", "nutrition", 2),
            record("adapter", "nutrition", 100),
            record("adapter", "nutrition", 5),
        ],
        "nutrition",
    )
    assert own == {"a_new_stage": 2, "adapter": 105}
    assert shared == {"base": 30, "dataset": 1}


def test_without_a_file_of_its_own_a_domain_is_the_bases_and_its_lora_file(tmp_path: Path) -> None:
    own = tmp_path / "nutrition" / "gguf"
    own.mkdir(parents=True)
    (own / "nutrition-F16.gguf").touch()
    found = recipes.find_files(tmp_path, "nutrition")
    assert found["F16"] == {"file": own / "nutrition-F16.gguf"}
    assert found["Q8_0"]["lora"] == own / "nutrition-lora.gguf"
    assert found["Q8_0"]["file"].parts[-2:] == ("quantized", "smollm2_135m-Q8_0.gguf")
    assert set(found["base"]) == {"file"}


def test_a_kept_run_is_read_as_it_was_and_leaves_nothing_else(tmp_path: Path) -> None:
    run = make_run("ours", [1.5, math.pi], [3, 4])
    keep_run(tmp_path / "runs" / "ours-nutrition-0.json", run)
    assert [read_run(path) for path in (tmp_path / "runs").iterdir()] == [run]


def test_each_recipe_is_first_as_often_as_the_others() -> None:
    orders = [rotate_recipes(number) for number in range(2 * len(RECIPES))]
    assert sorted(order[0] for order in orders) == sorted(RECIPES * 2)
    assert all(sorted(order) == sorted(RECIPES) for order in orders)


def test_a_part_is_what_a_process_took_without_its_start() -> None:
    account = Account()
    account.add("merge", Cost(10.0, 3.0, 500.0), 4.0)
    account.add("merge", Cost(6.0, 2.0, 700.0), 4.5)
    assert account.parts == {"merge": 7.5, START: 8.5}
    assert (account.seconds, account.peak_mb) == (5.0, 700.0)
    account.add("lora", Cost(1.0, 1.0, 1.0), 1.2)
    assert account.parts["lora"] == 0


def test_python_in_the_place_of_a_compiled_program_starts_for_nothing() -> None:
    account = Account()
    account.add("quantize", Cost(10.0, 3.0, 500.0), 4.0)
    assert account.parts == {"quantize": 6.0}


def test_what_a_worker_says_is_found_among_other_lines() -> None:
    assert read_said('Loading: 100%\nCHAIN {"start": 2.5}\nbye\n') == {"start": 2.5}
    with pytest.raises(ValueError, match="unpack"):
        read_said("nothing\n")


def test_processes_below_a_process_are_counted_and_a_failure_is_told() -> None:
    below = "x = bytearray(300 << 20); sum(range(20_000_000))"
    words = [
        sys.executable,
        "-c",
        f"import subprocess; subprocess.run({[sys.executable, '-c', below]!r})",
    ]
    _, cost = run_command(words, 1)
    assert cost.cpu_seconds > 0.2
    assert cost.peak_mb > 300
    with pytest.raises(SystemExit, match="no such luck"):
        run_command([sys.executable, "-c", "raise SystemExit('no such luck')"], 1)


def test_padded_batches_are_512_wide_and_only_answers_are_learnt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "EPOCHS", 1)
    texts = [Encoded([5, 6, 7 + n], [False, True, True]) for n in range(3)]
    batches = list(workers.make_padded_batches(texts, seed=3))
    assert [tuple(ids.shape) for ids, _, _ in batches] == [(2, 512), (1, 512)]
    learnt = sorted(label for _, _, labels in batches for label in labels.flatten().tolist())
    assert learnt[-6:] == [6, 6, 6, 7, 8, 9]
    assert set(learnt[:-6]) == {-100}
    assert sum(int(mask.sum()) for _, mask, _ in batches) == 9


def test_the_recipes_differ_in_their_training_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The chain after it is the same list of processes; ours stands for itself."""
    ran: dict[str, list[tuple[str, str]]] = {}

    def work(account: Account, part: str, name: str, job: dict[str, object], *_: object) -> object:
        ran[recipe].append((part, name))
        return {"nats": [1.0], "tokens": [1]}

    def run_script(account: Account, part: str, module: str, words: object) -> None:
        ran[recipe].append((part, module))

    monkeypatch.setattr(recipes, "run_worker", work)
    monkeypatch.setattr(recipes, "run_script", run_script)
    material = SimpleNamespace(
        trl_python="python", base=Path("b"), base_file=Path("f"), threads=1, shared={}, dataset=Path
    )
    for recipe in ("naive", "peers"):
        ran[recipe] = []
        recipes.run_recipe(recipe, "nutrition", 0, material, tmp_path)  # type: ignore[arg-type]
    assert ran["naive"][1:] == ran["peers"][1:]
    assert (ran["naive"][0], ran["peers"][0]) == (("train", "padded"), ("train", "trl"))
    assert [part for part, _ in ran["naive"]].count("evaluate") == 1 + len(TYPES)
    assert list(tmp_path.iterdir()) == []


def test_what_the_workers_import_is_there() -> None:
    for _, modules in WORKERS.values():
        missing = [
            name for name in modules if name.startswith("meetara_build") and not find_spec(name)
        ]
        assert missing == []


def test_what_the_workers_use_of_the_package_is_there() -> None:
    tree = ast.parse(Path(workers.__file__).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("meetara_build"):
            module = import_module(node.module or "")
            missing = [
                alias.name
                for alias in node.names
                if not hasattr(module, alias.name) and not find_spec(f"{node.module}.{alias.name}")
            ]
            assert missing == [], node.module
