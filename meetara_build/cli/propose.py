"""Ask the agents what to change, and show it.

What policy accepts is taken at once.
"""

from dataclasses import asdict

from meetara_build.cli.options import LOCAL, Domains, Json, Profile
from meetara_build.cli.output import print_json, progress
from meetara_build.engine.planning import project_graph, select_domains


def propose(domains: Domains = None, profile: Profile = LOCAL, as_json: Json = False) -> None:
    """Ask the agents, show what they propose, and take what policy accepts."""
    from meetara_build.cli.advice import POLICY, advise, print_advice, take, take_back
    from meetara_build.rounds.policy import ACCEPT, stance

    graph = project_graph(profile)
    named = select_domains(graph, domains or [])
    with progress() as bar:
        bar.add_task("asking the agents", total=None)
        advice = advise(graph, profile, named)
    policy = advice.context.policy
    accepted = [one for one in advice.winners() if stance(policy, one.agent) == ACCEPT]
    taken = take(graph, accepted, POLICY)
    undone = take_back(graph, advice.withdrawals, policy)
    if as_json:
        print_json(
            {
                "proposals": [{**asdict(one), "taken": one.id in taken} for one in advice.verdicts],
                "withdrawn": [asdict(one) for one in undone],
                "insights": advice.insights,
                "faults": advice.faults,
            }
        )
        return
    print_advice(advice, taken, undone)
