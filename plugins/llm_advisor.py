"""llm_advisor: a language model reads what builds showed, and proposes changes of numbers and
switches.

As shipped it is never asked. Any endpoint that speaks OpenAI's chat completions will do
(llama.cpp's server, Ollama, vLLM, a provider's), or a GGUF file that is loaded here. In
conf/build.yaml::

    agents:
      policy: {llm_advisor: ask}
      settings:
        llm_advisor: {url: "http://127.0.0.1:8080/v1", model: any, api_key_env: MY_KEY, max_proposals: 3, seconds: 50}
        # or: {gguf: models/some-instruct-Q4_K_M.gguf}

The model is given figures and told in a JSON schema what it may answer; the schema holds only keys
that agents may change, of the type they have. What it says is checked again, its promises are
modest, and its confidence is not asked for: a language model's own is no guide (arXiv 2306.13063).
Temperature 0 and a fixed seed give the same answer to the same context, as far as a server keeps
that.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from meetara_build.agents import Context, Domain, Proposal, Run, hookimpl, is_within
from meetara_build.toolbox.paired_runs import loss

WHERE = "agents.settings.llm_advisor in conf/build.yaml"
MOST_DOMAINS = 8
"""With the highest loss: a small model's attention is short."""
MOST_RUNS = 5
"""Newest runs of a domain, and newest errors, that the model sees."""
CONTEXT_TOKENS = 8192
GATES = ("evaluation", "gguf.logits_bound", "merge")
"""What decides whether a model is good enough is not its adviser's to move."""
GAINS = (0.01, 0.02, 0.05, 0.1)
"""The model chooses among them: a finer promise would mean nothing, and bounds on numbers are
beyond many servers' grammars."""
CONFIDENCE = 0.3
SEED = 17
FIGURES = ("loss", "seconds")
REFUSALS = (400, 422, 500)
"""What servers say to a way of giving a schema that they do not know."""
TYPES = {bool: "boolean", int: "integer", float: "number"}
"""Of the values it may propose; what a key has now decides."""
TASK = (
    "You advise on the training of small language models (LoRA adapters). Less loss is better; "
    "then less time. Below are domains with their configuration and what their trainings gave. "
    "Propose at most {most} changes that the figures speak for, none beyond {times:g} times "
    "up or down, each with a reason of one short sentence and the share by which the loss or the "
    "seconds will fall. Where the figures speak for nothing, propose nothing. Answer in JSON."
)


@dataclass(frozen=True)
class Settings:
    """What a person sets. Either ``url`` or ``gguf``."""

    url: str = ""
    model: str = "default"
    api_key_env: str = ""
    gguf: str = ""
    max_proposals: int = 3
    seconds: float = 50.0


@hookimpl
def propose(context: Context) -> list[Proposal]:
    """Have the model look at the domains with the highest loss."""
    settings = understood(context.settings)
    shown = pick_domains(context)
    keys = {name: allowed(domain, context.policy) for name, domain in shown.items()}
    types = {key: value for found in keys.values() for key, value in found.items()}
    if not types:
        return []
    told = json.dumps(facts(context, shown, keys), ensure_ascii=False, separators=(",", ":"))
    messages = [
        {"role": "system", "content": task(settings, context.policy)},
        {"role": "user", "content": told},
    ]
    schema = answer_schema(settings.max_proposals, list(shown), types)
    text = (
        from_file(settings, messages, schema)
        if settings.gguf
        else from_server(settings, messages, schema)
    )
    return list(read_answer(text, context, keys, settings.max_proposals))


def understood(given: Mapping[str, Any]) -> Settings:
    """The settings.

    Raises:
        ValueError: one is unknown or of the wrong type, or neither url nor gguf is there.
    """
    types = {field.name: type(field.default) for field in fields(Settings)}
    for name, value in given.items():
        if name not in types:
            raise ValueError(f"{WHERE}: unknown setting '{name}'; known: {', '.join(types)}")
        wanted = (int, float) if types[name] is float else types[name]
        if not isinstance(value, wanted) or isinstance(value, bool) or value in (0, ""):
            raise ValueError(f"{WHERE}: {name} is {value!r}; give a {types[name].__name__}")
    settings = Settings(**given)
    if bool(settings.url) == bool(settings.gguf):
        raise ValueError(
            f"{WHERE}: give either url or gguf, or set agents.policy.llm_advisor to never"
        )
    return settings


def pick_domains(context: Context) -> dict[str, Domain]:
    """Those that have been trained as they are now, the highest loss first."""
    losses = {
        name: loss(run) for name in context.domains if (run := context.current(name, "adapter"))
    }
    names = sorted(
        (name for name, found in losses.items() if found),
        key=lambda name: (-(losses[name] or 0.0), name),
    )
    return {name: context.domains[name] for name in names[:MOST_DOMAINS]}


def allowed(domain: Domain, policy: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers and switches that agents may change, with their values now."""

    return {
        key: value
        for key, value in domain.config.items()
        if type(value) in TYPES
        and is_within(key, policy["may_change"])
        and not is_within(key, [*domain.locked, *GATES])
    }


def task(settings: Settings, policy: Mapping[str, Any]) -> str:
    """What the model is to do."""
    return TASK.format(most=settings.max_proposals, times=policy["at_most_times"])


def facts(
    context: Context, shown: Mapping[str, Domain], keys: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the model is told."""
    told = {}
    for name in shown:
        runs = context.runs_of(name, "adapter")[-MOST_RUNS:]
        told[name] = {"config": keys[name], "runs": [figures(run, keys[name]) for run in runs]}
    failed = [run for run in context.runs if run.outcome == "failed" and run.domain in shown][
        -MOST_RUNS:
    ]
    errors = [
        {"domain": run.domain, "stage": run.stage, "error": (run.error or "")[:200]}
        for run in failed
    ]
    return {"domains": told, "errors": errors}


def figures(run: Run, config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's figures, and where its configuration differed from today's."""
    names = (
        "training_records",
        "steps",
        "best_step",
        "validation_loss_before",
        "validation_loss_after",
    )
    found = {name: short(run.metrics[name]) for name in names if name in run.metrics}
    then = {key: run.value(key) for key in config}
    other = {
        key: value for key, value in then.items() if value is not None and value != config[key]
    }
    return {
        "run": run.id,
        **found,
        "seconds": short(run.seconds),
        **({"with": other} if other else {}),
    }


def short(value: Any) -> Any:
    """Four digits of a number are enough."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def answer_schema(most: int, domains: Sequence[str], types: Mapping[str, Any]) -> dict[str, Any]:
    """What the model may answer: each key with a value of its type."""
    return closed(
        {
            "proposals": {
                "type": "array",
                "maxItems": most,
                "items": {
                    "anyOf": [
                        closed(
                            {
                                "domain": {"enum": list(domains)},
                                "key": {"const": key},
                                "value": {"type": TYPES[type(value)]},
                                "reason": {"type": "string", "maxLength": 200},
                                "figure": {"enum": list(FIGURES)},
                                "expected_gain": {"enum": list(GAINS)},
                            }
                        )
                        for key, value in sorted(types.items())
                    ]
                },
            }
        }
    )


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def from_server(settings: Settings, messages: list[dict[str, str]], schema: dict[str, Any]) -> str:
    """The answer of an OpenAI-compatible endpoint.

    Raises:
        ValueError: it cannot be reached, refuses, or answers something else.
    """
    import httpx2

    headers = {"Authorization": f"Bearer {api_key(settings)}"} if settings.api_key_env else {}
    url = f"{settings.url.rstrip('/')}/chat/completions"
    asked = {"model": settings.model, "messages": messages, "temperature": 0, "seed": SEED}
    # The first is OpenAI's way to give a schema; older servers on llama.cpp know the second alone.
    formats = (
        {"type": "json_schema", "json_schema": {"name": "proposals", "schema": schema}},
        {"type": "json_object", "schema": schema},
    )
    try:
        for form in formats:
            said = httpx2.post(
                url,
                json={**asked, "response_format": form},
                headers=headers,
                timeout=settings.seconds,
            )
            if said.status_code not in REFUSALS:
                break
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ValueError(
            f"{url}: no answer ({error or type(error).__name__}); start the server, or mend {WHERE}"
        ) from None
    if said.status_code != 200:
        raise ValueError(
            f"{url}: refused with HTTP {said.status_code} ({said.text[:200]}); mend {WHERE}"
        )
    try:
        return str(said.json()["choices"][0]["message"]["content"])
    except (ValueError, LookupError, TypeError):
        raise ValueError(
            f"{url}: answered as no chat-completions endpoint does; mend url in {WHERE}"
        ) from None


def api_key(settings: Settings) -> str:
    """The key, from the environment variable that the settings name."""
    if key := os.environ.get(settings.api_key_env):
        return key
    raise ValueError(
        f"the environment variable {settings.api_key_env} is not set; set it, or mend api_key_env "
        f"of {WHERE}"
    )


def from_file(settings: Settings, messages: list[dict[str, str]], schema: dict[str, Any]) -> str:
    """The answer of a model in a GGUF file; a relative path begins in the project.

    Raises:
        ValueError: it cannot be loaded.
    """
    from llama_cpp import Llama

    path = Path(__file__).parents[1] / settings.gguf
    if not path.is_file():
        raise ValueError(f"{path}: is not there; mend gguf of {WHERE}")
    try:
        model = Llama(str(path), n_ctx=CONTEXT_TOKENS, seed=SEED, verbose=False)
    except Exception as error:
        raise ValueError(
            f"{path}: llama.cpp cannot load it ({error}); give another file as gguf of {WHERE}"
        ) from None
    try:
        form = {"type": "json_object", "schema": schema}
        said = model.create_chat_completion(
            messages, temperature=0.0, seed=SEED, response_format=form
        )
    except Exception as error:
        raise ValueError(
            f"{path}: cannot answer ({error}); give another file as gguf of {WHERE}"
        ) from None
    return str(said["choices"][0]["message"]["content"])


def read_answer(
    text: str, context: Context, keys: Mapping[str, Mapping[str, Any]], most: int
) -> Iterator[Proposal]:
    """The proposals in an answer; those of what is so already, or locked in that domain, are left
    out.

    Raises:
        ValueError: the answer is not of the schema, as of a model that cannot be held to one.
    """
    try:
        several = list(json.loads(text)["proposals"])[:most]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError(
            f"the model did not answer in the JSON it was asked for: {text[:80]!r}; use one that "
            "does"
        ) from None
    for one in several:
        if not shaped(one):
            raise ValueError(
                f"the model proposed {str(one)[:120]}, which is not what it was asked for; use "
                "another one"
            )
        domain, key, value = one["domain"], one["key"], one["value"]
        now = keys.get(domain, {}).get(key)
        if type(now) is float and type(value) is int:
            value = float(value)
        run = context.current(domain, "adapter") if now is not None else None
        if run is None or value == now:
            continue
        if type(value) is not type(now):
            raise ValueError(
                f"the model proposed {value!r} for {key}, which is {now!r} now; use another one"
            )
        evidence = (f"run {run.id}: validation loss {loss(run):.4g}, {run.seconds:.3g} s",)
        reason = f"a language model: {one['reason']}"
        yield Proposal(
            domain, key, value, reason, evidence, one["expected_gain"], CONFIDENCE, one["figure"]
        )


def shaped(one: Any) -> bool:
    """Whether a proposal is of the schema, whatever key it is of."""
    return (
        isinstance(one, dict)
        and all(isinstance(one.get(name), str) for name in ("domain", "key", "reason"))
        and type(one.get("value")) in TYPES
        and one.get("expected_gain") in GAINS
        and one.get("figure") in FIGURES
    )
