"""What other programs may read, call and ask for, seen with the SDK's client."""

import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp import Client, MCPError
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp.types import ResourceTemplateReference

from meetara_build.context import tables
from meetara_build.context.local import Local
from meetara_build.context.store import SECTIONS, Retention
from meetara_build.graph import load
from meetara_build.mcp.served import Served
from meetara_build.mcp.server import make_server
from meetara_build.store import journal

Talk = Callable[[Client], Awaitable[Any]]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Local]:
    local = Local(f"sqlite:///{tmp_path / 'context.db'}", Retention())
    yield local
    local.close()


@pytest.fixture
def talk(context: Local, built_project: Path) -> Callable[[Talk], Any]:
    """Have a conversation with the server of the built project."""
    server = make_server(Served(context, built_project), InMemorySubscriptionBus())

    def held(talk: Talk) -> Any:
        async def connected() -> Any:
            async with Client(server) as client:
                try:
                    return await talk(client)
                except MCPError as error:
                    return error

        answer = anyio.run(connected)
        if isinstance(answer, MCPError):
            raise answer
        return answer

    return held


@pytest.fixture
def call(talk: Callable[[Talk], Any]) -> Callable[..., Any]:
    """Call a tool; what it answers, or the words of its refusal."""

    def called(tool: str, **arguments: Any) -> Any:
        answer = talk(lambda client: client.call_tool(tool, arguments))
        return answer.content[0].text if answer.is_error else answer.structured_content

    return called


def test_every_section_is_a_resource_and_one_for_each_domain(talk: Callable[[Talk], Any]) -> None:
    assert [found.uri for found in talk(lambda c: c.list_resources()).resources] == [
        f"meetara://{name}" for name in SECTIONS
    ]
    templates = talk(lambda c: c.list_resource_templates()).resource_templates
    assert [found.uri_template for found in templates] == [
        f"meetara://{name}/{{+domain}}" for name in SECTIONS
    ]
    for name in SECTIONS:
        for uri in (
            f"meetara://{name}",
            f"meetara://{name}/nutrition",
            f"meetara://{name}/base/mini",
        ):
            (content,) = talk(lambda c, uri=uri: c.read_resource(uri)).contents
            assert content.mime_type == "application/json"
            assert len(json.loads(content.text)) == 3


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (
            "meetara://quality_metrics/nutrtion",
            "unknown domain 'nutrtion'; did you mean 'nutrition'?",
        ),
        ("meetara://gossip", "Unknown resource"),
        ("meetara://quality_metrics/../../etc/passwd", "nknown"),
        ("meetara://quality_metrics/%2e%2e%2fetc", "nknown"),
        ("meetara://quality_metrics/a%00b", "nknown"),
        ("file:///etc/passwd", "Unknown resource"),
        ("not a uri", "nknown"),
    ],
)
def test_what_is_no_resource_is_refused_in_words(
    talk: Callable[[Talk], Any], uri: str, said: str
) -> None:
    with pytest.raises(MCPError, match=said):
        talk(lambda client: client.read_resource(uri))


def test_domains_are_completed(talk: Callable[[Talk], Any]) -> None:
    reference = ResourceTemplateReference(uri="meetara://training_state/{+domain}")
    found = talk(lambda client: client.complete(reference, {"name": "domain", "value": "nu"}))
    assert found.completion.values == ["nutrition"]


def test_what_is_reported_is_in_its_section(call: Callable[..., Any], context: Local) -> None:
    first = call(
        "report_metrics", domain="nutrition", values={"helpful": 0.8}, sender="judge", id="mine"
    )
    again = call(
        "report_metrics", domain="nutrition", values={"helpful": 0.8}, sender="judge", id="mine"
    )
    assert (first, again) == ({"id": "mine", "new": True}, {"id": "mine", "new": False})
    call(
        "report_error",
        domain="nutrition",
        stage="gguf",
        message="it broke",
        solution="another disk",
    )
    (reported,) = context.section("quality_metrics")["model_performance"]["reported"]
    assert (reported["sender"], reported["values"]) == ("judge", {"helpful": 0.8})
    (error,) = context.section("knowledge_base", "nutrition")["error_solutions"]
    assert (error["message"], error["solution"]) == ("it broke", "another disk")


def test_a_proposal_is_answered(call: Callable[..., Any]) -> None:
    asked = call(
        "propose",
        domain="nutrition",
        key="training.epochs",
        value=4,
        reason="it falls",
        confidence=0.7,
        sender="tuner",
    )
    assert call("answer", message=asked["id"], answer="accepted", reason="cheap", sender="judge")[
        "new"
    ]
    found = call("read_messages", about="proposal")
    (message,) = found["messages"]
    assert (message["body"]["key"], message["sender"], message["answers"]["judge"]["answer"]) == (
        "training.epochs",
        "tuner",
        "accepted",
    )
    assert call("read_messages", after=found["position"])["messages"] == []
    call("send_message", about="breakthrough", body={"loss": 1.5}, sender="qa")
    assert call("read_messages", after=found["position"])["messages"][0]["body"]["loss"] == 1.5


def test_the_plan_is_that_of_the_command_line(
    call: Callable[..., Any], built_project: Path
) -> None:
    found = call("get_plan")
    assert found["project"] == str(built_project)
    assert found["counts"] == {
        "run": 0,
        "restore": 0,
        "maybe": 0,
        "fresh": len([s for s in load(built_project).steps.values() if s.keep]),
    }
    assert call("get_plan", domains=["nope"]).endswith(
        "unknown domain 'nope'; known: nutrition, programming, storytelling"
    )


def test_similar_domains_come_with_their_results(call: Callable[..., Any], context: Local) -> None:
    about = {"build": "b", "machine": "m", "hardware": "cpu", "seconds": 1.0, "outcome": "built"}
    context.deliver(
        [
            {
                "kind": "run",
                "id": "r",
                "time": 1.0,
                "domain": "storytelling",
                "stage": "evaluate",
                "metrics": {"improvement": 0.1},
                **about,
            }
        ]
    )
    found = {
        other["domain"]: other for other in call("similar_domains", domain="nutrition")["similar"]
    }
    other = found["storytelling"]
    assert 0 < other["similarity"] < 1
    assert other["evaluated"]["improvement"] == 0.1
    assert [run["id"] for run in call("read_history", domain="storytelling")["runs"]] == ["r"]


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("report_metrics", {"domain": "nope", "values": {"a": 1.0}}, "unknown domain 'nope'"),
        (
            "report_metrics",
            {"domain": "nutrition", "values": {"a": 1e300}},
            "less than or equal to",
        ),
        ("report_metrics", {"domain": "nutrition", "values": {}}, "at least 1 item"),
        ("report_metrics", {"domain": "../x", "values": {"a": 1.0}}, "should match pattern"),
        ("report_error", {"domain": "nutrition", "message": "a\x00b"}, "control character"),
        (
            "report_error",
            {"domain": "nutrition", "message": "x" * 9_000},
            "at most 8000 characters",
        ),
        (
            "propose",
            {"domain": "nutrition", "key": "../x", "value": 1, "reason": "so"},
            "key: String should match pattern",
        ),
        (
            "propose",
            {"domain": "nutrition", "key": "a.b", "value": ["x" * 70_000], "reason": "so"},
            "at most 64000 are taken",
        ),
        (
            "send_message",
            {"about": "proposal", "body": {}},
            "Input should be 'error', 'breakthrough' or 'note'",
        ),
        (
            "answer",
            {"message": "none", "answer": "accepted"},
            "there is no message 'none'; read_messages lists them",
        ),
        (
            "report",
            {"reports": [{"kind": "gossip"}]},
            "report 1: kind 'gossip' is unknown",
        ),
        ("report", {"reports": "all"}, "valid list"),
        (
            "report_error",
            {"domain": "nutrition", "message": "m", "stage": "../x"},
            "String should match pattern",
        ),
        (
            "report_metrics",
            {"domain": "nutrition", "values": {"a": 1}, "sender": '{"a": 1}'},
            "should match pattern",
        ),
        (
            "report_metrics",
            {"domain": "nutrition", "values": {"a": 1}, "id": "[1]"},
            "should match pattern",
        ),
        ("similar_domains", {"domain": "nutrition", "count": 0}, "greater than or equal to 1"),
        ("read_history", {"limit": 10**9}, "less than or equal to 1000"),
    ],
)
def test_a_wrong_call_is_refused_in_words(
    call: Callable[..., Any], tool: str, arguments: dict[str, Any], said: str
) -> None:
    answer = call(tool, **arguments)
    assert isinstance(answer, str)
    assert said in answer


def test_text_that_looks_like_json_is_taken_as_the_text_it_is(
    call: Callable[..., Any], context: Local
) -> None:
    call(
        "report_error",
        domain="nutrition",
        message='["boom"]',
        solution='{"batch": 256}',
        sender="null",
        id="null",
    )
    (error,) = context.section("knowledge_base", "nutrition")["error_solutions"]
    assert (error["message"], error["solution"]) == ('["boom"]', '{"batch": 256}')
    assert call(
        "report_error", domain="nutrition", message="m", solution=None, sender=None, id=None
    )["new"]


def test_no_log_outside_the_folder_of_logs_is_read_whatever_stage_a_run_was_reported_of(
    talk: Callable[[Talk], Any], context: Local, built_project: Path
) -> None:
    root = load(built_project).root
    secret = root / "elsewhere.log"
    secret.write_text("secret")
    context.deliver(
        [
            {
                "kind": "run",
                "id": "r",
                "time": time.time(),
                "domain": "nutrition",
                "stage": "adapter",
                "seconds": 1.0,
                "outcome": "failed",
            }
        ]
    )
    with context.store.writing() as connection:  # as a version that took any stage kept it
        connection.execute(sa.update(tables.run).values(stage="../../elsewhere"))
    said = (
        talk(lambda client: client.get_prompt("why_failed", {"domain": "nutrition"}))
        .messages[0]
        .content.text
    )
    secret.unlink()
    assert "secret" not in said


def test_prompts_have_what_is_needed_to_answer_them(
    talk: Callable[[Talk], Any], context: Local
) -> None:
    context.deliver(
        [
            {
                "kind": "run",
                "id": "r",
                "time": time.time(),
                "domain": "nutrition",
                "stage": "adapter",
                "seconds": 1.0,
                "outcome": "failed",
                "error": "step 3: the loss is not finite",
                "machine": journal.machine(),
            }
        ]
    )
    said = (
        talk(lambda client: client.get_prompt("why_failed", {"domain": "nutrition"}))
        .messages[0]
        .content.text
    )
    assert "step 3: the loss is not finite" in said
    said = (
        talk(lambda client: client.get_prompt("review_plan", {"domains": "nutrition"}))
        .messages[0]
        .content.text
    )
    assert '"counts"' in said
    for name, arguments in (
        ("why_failed", {"domain": "nope"}),
        ("review_plan", {"domains": "nope"}),
    ):
        with pytest.raises(MCPError, match="unknown domain 'nope'"):
            talk(lambda client, name=name, given=arguments: client.get_prompt(name, given))
    with pytest.raises(MCPError, match="Unknown prompt"):
        talk(lambda client: client.get_prompt("nope"))


# Fuzzing: what the schemas allow and what they do not, over all tools; ten thousand calls are in
# bench/context.py.

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=8,
)
TOOLS = [
    "report_metrics",
    "report_error",
    "propose",
    "send_message",
    "answer",
    "report",
    "similar_domains",
    "read_history",
    "read_messages",
    "look_back",
]
NAMES = st.sampled_from(
    [
        "domain",
        "values",
        "stage",
        "sender",
        "id",
        "message",
        "solution",
        "key",
        "value",
        "reason",
        "about",
        "body",
        "answer",
        "reports",
        "count",
        "limit",
        "after",
        "before",
        "build",
        "outcome",
    ]
)
KNOWN = st.sampled_from(
    ["nutrition", "base/mini", "accepted", "note", "error", 1, 0.5, {"a": 1.0}, [{"kind": "run"}]]
)


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(st.sampled_from(TOOLS), st.dictionaries(NAMES, KNOWN | JSON, max_size=6))
def test_no_call_has_an_unhandled_error(
    call: Callable[..., Any], tool: str, arguments: dict[str, Any]
) -> None:
    answer = call(tool, **arguments)
    assert not isinstance(answer, str) or "Traceback" not in answer
    assert answer is not None
