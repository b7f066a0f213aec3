"""Whether a training that begins from a neighbour's adapter is there earlier, and whether one from
a stranger's does harm.

python -m bench.agents.transfer [--folder DIR] [--domains N]

For the domains with the most similar neighbours: steps until the validation loss is as low as the
cold training's best, cold against warm. For the same domains with the least similar one: the final
loss of the race, in which both are trained a stretch and the better one goes on, against the cold
training's.
"""

from math import ceil
from statistics import median

from bench.agents.trials import Result, Trial, Trials, nearest, opened, with_near_neighbours
from bench.result_files import keep_result
from meetara_build.training.race import STRETCH, warm_wins

FEWER = 0.5
SEEN = 12
"""Dissimilar pairs on which, with the similar ones, the race's lead was chosen; the others are held
out."""


def raced(cold: Result, warm: Result) -> Result:
    """The one that goes on, as in ``training.race``: the same training as if there had been no
    other."""
    stretch = ceil(STRETCH * cold.steps)
    return warm if warm_wins(warm.after_steps(stretch), cold.after_steps(stretch)) else cold


def similar(trials: Trials, names: list[str]) -> tuple[float, float]:
    """Print steps, cold and warm; the median share of steps saved, without the race and with it."""
    alike = trials.similarities()
    print(
        f"\n{'domain':22} {'begins from':22} {'alike':>5} {'cold':>5} {'warm':>5} {'saved':>6} {'loss cold':>10} {'warm':>7}"
    )
    saved, with_race, won = [], [], 0
    for name in names:
        teacher = nearest(alike, name)[0]
        cold, warm = trials[Trial(name)], trials[Trial(name, teacher)]
        needed = cold.steps_to(cold.after) or cold.steps
        took = warm.steps_to(cold.after)
        saved.append(1 - (took or warm.steps) / needed)
        wins = raced(cold, warm) is warm
        won += wins
        with_race.append(
            1
            - ((took or warm.steps) if wins else needed) / needed
            - ceil(STRETCH * cold.steps) / needed
        )
        print(
            f"{name:22} {teacher:22} {alike[name][teacher]:5.2f} {needed:5} {took or 'never':>5} {saved[-1]:6.0%} "
            f"{cold.after:10.3f} {warm.after:7.3f}"
        )
    print(
        f"the warm one won {won} of {len(names)} races; steps saved where the race's own count too: {median(with_race):.0%}"
    )
    return median(saved), median(with_race)


def dissimilar(trials: Trials, names: list[str]) -> list[float]:
    """By how much the race's final validation loss is above the cold training's, for each domain;
    the test losses are printed."""
    alike = trials.similarities()
    harm, tests, won = [], [], 0
    for name in names:
        cold, warm = trials[Trial(name)], trials[Trial(name, nearest(alike, name)[-1])]
        winner = raced(cold, warm)
        won += winner is warm
        harm.append(winner.after / cold.after - 1)
        tests.append(winner.test / cold.test - 1)
    print(
        f"\nLeast similar pairs: the warm one won {won} of {len(names)} races. Loss of the race above the cold training's: "
        f"validation median {median(harm):+.1%}, worst {max(harm):+.1%}; test median {median(tests):+.1%}, "
        f"worst {max(tests):+.1%}"
    )
    return harm


def main() -> None:
    """Print both tables."""
    with opened(__doc__, 22) as (options, trials):
        alike = trials.similarities()
        names = list(with_near_neighbours(alike, options.domains))
        trials.make(Trial(name) for name in names)
        trials.make(Trial(name, nearest(alike, name)[0]) for name in names)
        trials.make(Trial(name, nearest(alike, name)[-1]) for name in names)
        saved, saved_with_race = similar(trials, names)
        tests = [
            trials[Trial(name, nearest(alike, name)[0])].test / trials[Trial(name)].test - 1
            for name in names
        ]
        print(f"test loss of the warm ones against the cold: median {median(tests):+.1%}")
        chosen_on = dissimilar(trials, names[:SEEN])
        held_out = dissimilar(trials, names[SEEN:]) if names[SEEN:] else []
        harm = chosen_on + held_out
    if held_out:
        strangers = {
            "pairs": len(held_out),
            "median": median(held_out),
            "worst": max(held_out),
            "chosen_on": len(chosen_on),
            "worst_chosen_on": max(chosen_on),
        }
        found = {"pairs": len(names), "saved": saved, "saved_with_race": saved_with_race}
        keep_result("agents_transfer", {**found, "dissimilar": strangers})
    reached = "reached" if saved >= FEWER else "MISSED"
    print(
        f"\nsteps saved by a similar neighbour: median {saved:.0%} over {len(names)} pairs; target {FEWER:.0%}: {reached}"
    )
    print(
        f"no harm by a dissimilar one: median {median(harm):+.2%}; target 0%: {'reached' if median(harm) <= 0 else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
