"""Whether domains that learn the records of those most like them too are better than alone, on what
is held out.

python -m bench.agents.joint [--folder DIR] [--domains N]

Joint trainings have the same epochs as separate ones, so more steps. As in a build, what is not
better on the validation records is not kept; the test records tell what that choice is worth.
"""

from statistics import mean

from bench.agents.trials import Trial, Trials, nearest, opened, with_near_neighbours
from bench.result_files import keep_result

COMPANIONS = 2
"""As cross_domain proposes."""
JOINT = 8
"""Domains that are looked at."""


def wanted(trials: Trials, count: int) -> list[tuple[Trial, Trial]]:
    """Separate and joint trainings of the domains with the most similar neighbours."""
    alike = trials.similarities()
    names = with_near_neighbours(alike, count)
    return [
        (Trial(name), Trial(name, joint=tuple(sorted(nearest(alike, name)[:COMPANIONS]))))
        for name in names
    ]


def main() -> None:
    """Print a line for each group, and the shares of domains that are better."""
    with opened(__doc__, JOINT) as (options, trials):
        pairs = wanted(trials, options.domains)
        trials.make(trial for pair in pairs for trial in pair)
        print(
            f"\n{'domain':20} {'with':42} {'validation':>10} {'joint':>7} {'test':>7} {'joint':>7} {'kept':>5}"
        )
        gains = []
        for alone, together in pairs:
            one, other = trials[alone], trials[together]
            kept = other.after < one.after
            gains.append((1 - other.after / one.after, 1 - other.test / one.test, kept))
            print(
                f"{alone.domain:20} {', '.join(together.joint):42} {one.after:10.3f} {other.after:7.3f} {one.test:7.3f} "
                f"{other.test:7.3f} {'yes' if kept else 'no':>5}"
            )
    validation, test, kept_test = (
        [gain for gain, _, _ in gains],
        [gain for _, gain, _ in gains],
        [gain if kept else 0.0 for _, gain, kept in gains],
    )
    for what, values in (
        ("validation", validation),
        ("test", test),
        ("test, with what a build keeps", kept_test),
    ):
        better = sum(value > 0 for value in values)
        print(
            f"{what}: {better} of {len(values)} domains better, {mean(values):.1%} less loss on average, worst {min(values):+.1%}"
        )
    better = sum(gain > 0 for gain in test)
    keep_result("agents_joint", {"domains": len(test), "better": better, "gain": mean(test)})
    print(
        f"a build's choice does no harm on the test records: {'reached' if mean(kept_test) >= 0 else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
