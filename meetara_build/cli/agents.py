"""List the agents, what each may do, and how it fared."""

from dataclasses import asdict

from meetara_build.cli.options import Json
from meetara_build.cli.output import out, print_json, table
from meetara_build.config.plugins import find_misnamed_plugins
from meetara_build.engine.planning import project_graph
from meetara_build.hosting.host import ask_all
from meetara_build.outside import show_line


def agents(as_json: Json = False) -> None:
    """Every agent: what it can do, what policy says of it, how its proposals fared, and what is
    wrong with it."""
    from meetara_build.agents.snapshot import Context
    from meetara_build.cli.advice import shared_context
    from meetara_build.config.resolve import Configuration
    from meetara_build.context.delivery import Delivery
    from meetara_build.rounds.asking import agents as list_agents
    from meetara_build.rounds.gathering import look_back
    from meetara_build.rounds.policy import stance
    from meetara_build.rounds.track_record import Record, outcomes, records

    graph = project_graph()
    configuration = Configuration(graph.project)
    policy = configuration.build.agents.model_dump()
    with shared_context(graph) as shared:
        Delivery(graph.root, shared).once()
        past = look_back(shared)
    known = records(past.messages, outcomes(past.messages, past.runs))
    made = {name: make(Context({})) for name, make in list_agents(graph.project, policy).items()}
    answers = ask_all(made, {"hook": "verify"}, policy["seconds"], graph.root / "logs" / "agents")
    found = {}
    misnamed = find_misnamed_plugins(graph.project)
    for name in [*answers, *misnamed, *(name for name in known if name not in answers)]:
        answer, record = answers.get(name), known.get(name, Record())
        found[name] = {
            "hooks": (answer.value or [])
            if answer
            else []
            if name in misnamed
            else ["message"],  # others speak over MCP
            "fault": answer.fault if answer else misnamed.get(name),
            "policy": stance(policy, name),
            "reliability": record.reliability,
            **asdict(record),
        }
    if as_json:
        print_json({"agents": found})
        return
    shown = table(
        "agent", "does", "policy", ">proposed", ">accepted", ">helped", ">promised", ">measured"
    )
    shown.columns[0].no_wrap = True
    for name, one in found.items():
        gains = [
            f"{one[key]:.1%}" if one["measured"] else "" for key in ("expected_gain", "actual_gain")
        ]
        helped = f"{one['helped']} of {one['measured']}" if one["measured"] else ""
        counts = [str(one[key] or "") for key in ("proposed", "accepted")]
        shown.add_row(
            show_line(name),
            ", ".join(one["hooks"]) or "nothing",
            one["policy"],
            *counts,
            helped,
            *gains,
        )
    out.print(shown)
    for name, one in found.items():
        if one["fault"]:
            out.print(f"  {name}: {one['fault']}", style="red")
