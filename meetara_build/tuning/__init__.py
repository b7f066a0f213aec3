"""The search for a domain's best settings: many short trainings in memory, of which the poor ones
are stopped early.

::

    space          the keys that build.yaml's ``tuning.space`` names, and how a trial's values are chosen
    trainer        base and records loaded once; one adapter after the other, trained as the adapter stage trains it
    studies        where trials are kept, so that a search goes on where it stopped, and several work on one
    neighbours     settings that did well on similar domains, tried first
    search         processes that take trials until there are enough
    verdict        whether the best one is better by more than noise, and what is then decided
    plots          how the search went, and which keys matter
"""

from meetara_build.errors import needs

with needs("tune"):
    import matplotlib  # noqa: F401
    import optuna  # noqa: F401
