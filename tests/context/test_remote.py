"""A context behind a server: the same reports, the same sections, and words for whatever is in the
way."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from projects import copy_built
from reported import proposal, report, run, trained

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "mcp"))
from served import Guarded, client

from meetara_build.context.remote import Remote
from meetara_build.errors import ContextError, ReportError


@pytest.fixture(scope="module")
def guarded(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A built project, served to those who have a token."""
    with Guarded(
        copy_built(built_project, tmp_path_factory.mktemp("remote") / "project")
    ).served() as made:
        yield made


def test_what_is_delivered_is_read_again(guarded: Guarded) -> None:
    remote = Remote(guarded.url, guarded.writer)
    position, made = remote.position(), trained(2.5)
    assert remote.deliver([made]) == [made["id"]]
    assert remote.deliver([made]) == []
    assert (
        remote.section("quality_metrics", "nutrition")["validation_scores"]["nutrition"][
            "validation_loss_after"
        ]
        == 2.5
    )
    assert remote.position() > position


def test_agents_look_back_through_it_as_they_do_on_a_database(guarded: Guarded) -> None:
    remote = Remote(guarded.url, guarded.writer)
    made = trained(2.5)
    remote.deliver([made])
    found = remote.history(1)
    assert [row["id"] for row in found["runs"]] == [made["id"]]
    assert found["runs"][0]["recipe"] == made["recipe"]
    with pytest.raises(ContextError, match="greater than or equal to 1"):
        remote.history(0)


def test_a_refused_report_is_known_as_such(guarded: Guarded) -> None:
    with pytest.raises(ReportError, match=r"report 1 \(run\): domain: String should match pattern"):
        Remote(guarded.url, guarded.writer).deliver([run(domain="No Name")])


def test_what_the_server_alone_refuses_is_known_by_its_code(guarded: Guarded) -> None:
    learnt = report(
        "pattern", domain="nutrition", change="a: 1 → 2", figure="loss", before=2.0, after=1.0
    )
    with pytest.raises(ReportError, match=r"^a token reports run, sample, progress, error, not"):
        Remote(guarded.url, guarded.writer).deliver([learnt])


def test_whoever_has_a_token_speaks_under_its_name_alone(guarded: Guarded) -> None:
    remote = Remote(guarded.url, guarded.writer)
    asked = proposal(sender="desk")
    note = report("message", about="note", sender="qa", domain="nutrition", body={"text": "hello"})
    said = report("reply", message=asked["id"], sender="person", answer="accepted")
    figures = report("metrics", domain="nutrition", sender="measured", values={"helpful": 0.5})
    wrong = report(
        "error", domain="nutrition", stage="gguf", sender="stage_run", message="it broke here"
    )
    for one in (asked, note, said, figures, wrong):
        assert remote.deliver([one]) == [one["id"]]
    told = {message["id"]: message for message in remote.history(100)["messages"]}
    assert (told[asked["id"]]["sender"], told[note["id"]]["sender"]) == ("writer", "writer")
    assert [answer["sender"] for answer in told[asked["id"]]["answers"]] == ["writer"]
    reported = remote.section("quality_metrics", "nutrition")["model_performance"]["reported"]
    assert [row["sender"] for row in reported] == ["writer"]


def test_the_tool_for_jobs_takes_from_a_token_what_jobs_report_and_nothing_else(
    guarded: Guarded,
) -> None:
    answer = anyio.run(_reported, guarded, [run(), proposal(sender="desk")])
    assert answer.is_error
    assert (
        "a token reports run, sample, progress, error, not 'message'; use report_metrics, propose"
        in answer.content[0].text
    )


async def _reported(guarded: Guarded, reports: list[Any]) -> Any:
    async with client(guarded.url, guarded.writer) as connected:
        return await connected.call_tool("report", {"reports": reports})


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_wrong_token_is_named(guarded: Guarded, token: str | None) -> None:
    with pytest.raises(ContextError, match=r"wants a token, or another one; set MEETARA_TOKEN"):
        Remote(guarded.url, token).deliver([run()])


def test_a_token_to_read_only_is_named(guarded: Guarded) -> None:
    with pytest.raises(ContextError, match="the token 'reader' may only read"):
        Remote(guarded.url, guarded.reader).deliver([run()])


def test_a_server_that_is_away_is_named() -> None:
    with pytest.raises(
        ContextError,
        match=r"http://127.0.0.1:9/mcp: cannot be reached .*; start `meetara-build context serve`",
    ):
        Remote("http://127.0.0.1:9/mcp", None).deliver([run()])


def test_a_server_that_is_something_else_is_named(tmp_path: Path) -> None:
    import http.server
    import threading

    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(ContextError, match=rf"http://127.0.0.1:{server.server_port}/mcp: "):
        Remote(f"http://127.0.0.1:{server.server_port}/mcp", None).deliver([run()])
    server.shutdown()
