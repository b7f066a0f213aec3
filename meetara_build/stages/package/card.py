"""The model card: what the model is for, what it was trained on, and how good it is, as
measured."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from meetara_build.stages.answers import CHECKS
from meetara_build.stages.losses import Losses
from meetara_build.stages.package.files import Use, find_default
from meetara_build.stages.package.judging import (
    Judged,
    count_findings,
    rank_worst,
    show_around,
    show_on_line,
)
from meetara_build.stages.recipes.package import PackageRecipe

WORST = 3
"""Answers that are shown."""


def model_card(
    recipe: PackageRecipe,
    evaluation: Mapping[str, Any],
    data: Mapping[str, Any],
    training: Mapping[str, Any],
    judged: Mapping[str, Sequence[Judged]],
    origin: Mapping[str, Any] | None = None,
    refusal: str | None = None,
    not_written: str | None = None,
) -> str:
    """Markdown with the front matter that model hubs read; ``judged`` are the answers of base and
    files, ``origin`` is the ``origin.json`` of a base that was taken back from a GGUF file, and
    ``refusal`` says why the model is held back, if it is, and ``not_written`` why there is no
    Modelfile."""
    from huggingface_hub import ModelCardData

    front = ModelCardData(
        model_name=recipe.domain,
        eval_results=_results(recipe.domain, evaluation),
        license=recipe.licence,
        language=list(recipe.languages),
        base_model=_base_model(recipe),
        tags=["gguf", "lora", recipe.category, recipe.domain],
    )
    parts = [
        f"---\n{front.to_yaml()}\n---",
        f"# {recipe.domain}\n\n{recipe.description}. A LoRA fine-tune of `{recipe.base}`, "
        f"{_form(recipe)}.{_base(origin)}",
        _use(recipe, find_default(recipe), not_written) if refusal is None else _hold_back(refusal),
        _figures(evaluation),
        *([_answers(recipe, evaluation, judged)] if judged else []),
        _data(data),
        _training(training),
    ]
    if recipe.safety == "strict":
        parts.append(
            "## Limits\n\nThis is a small language model: it can be wrong and sound sure. It does "
            "not replace a professional, and in an emergency the local emergency number (112, "
            "911, 999) comes first."
        )
    return "\n\n".join(parts) + "\n"


def _results(domain: str, evaluation: Mapping[str, Any]) -> list[Any]:
    """The perplexity of each file, as hubs list it (``model-index``)."""
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type="text-generation",
            dataset_type="held-out",
            dataset_name=f"{evaluation['records']} held-out records of {domain}",
            metric_type="perplexity",
            metric_name=f"perplexity, {quant}",
            metric_value=round(figures["perplexity"], 4),
        )
        for quant, figures in evaluation["variants"].items()
    ]


def _base_model(recipe: PackageRecipe) -> str:
    file = recipe.base_file
    if file is None:
        return recipe.base_origin
    where = file.hub_id or file.package or "a local file"
    return f"{where}: {file.file.rpartition('/')[2]}"


def _base(origin: Mapping[str, Any] | None) -> str:
    if origin is None:
        return ""
    lost = (
        f", which is quantized to {origin['quantized']}: what that lost, it lacks too"
        if origin["quantized"]
        else ""
    )
    return f" The base was taken back from `{origin['file']}`{lost}."


def _form(recipe: PackageRecipe) -> str:
    if recipe.files == "lora":
        return "as an adapter that is used on its base's own quantized files"
    return "merged and quantized"


def _use(recipe: PackageRecipe, use: Use, not_written: str | None) -> str:
    opened = (
        f"`llama-cli -m {use.model.seen} --lora {use.adapter.seen}` with llama.cpp. LM Studio "
        "loads no adapters: build with `gguf.files: both` for it."
        if use.adapter
        else f"open `{use.model.seen}` in llama.cpp or LM Studio."
    )
    if not_written is None:
        ways = (
            f"```\nollama create {recipe.domain} -f Modelfile && ollama run {recipe.domain}\n```\n\n"
            f"or {opened}"
        )
    else:
        ways = (
            f"{opened[0].upper()}{opened[1:]}\n\nModelfile for Ollama: not written: {not_written}."
        )
    return (
        f"## Use\n\n{ways} `meetara-build verify` proves the files against `SHA256SUMS`.\n\n"
        "Front ends that turn a conversation into tokens as one text, Ollama and llama.cpp's server "
        "among them, read a control token of the base as such wherever it stands: take them out of "
        "what users write."
    )


def _hold_back(refusal: str) -> str:
    return (
        f"## Held back\n\nThis model is not packaged:\n\n```\n{refusal.replace('```', '´´´')}\n```"
    )


def _answers(
    recipe: PackageRecipe, evaluation: Mapping[str, Any], judged: Mapping[str, Sequence[Judged]]
) -> str:
    """How the files answered held-out prompts, and the worst answers of the one that is named
    above."""
    counted = {name: count_findings(answers) for name, answers in judged.items()}
    rows = [
        "| model | answers | with a fault | that can do harm | finds the right answer of four | "
        "chrF |",
        "|---|--:|--:|--:|--:|--:|",
        *(
            f"| {name} | {one['answers']} | {one['faulty']:.0%} | {one['harmful']:.0%} | "
            f"{_describe_choices(evaluation['choices'].get(name))} | {one['closeness']:.1f} |"
            for name, one in counted.items()
        ),
    ]
    default = recipe.quants[-1]
    shares = counted[default]["checks"]
    checks = [
        f"| {check.about} | {_optional(counted['base']['checks'][check.name], '.0%')} | "
        f"{shares[check.name]:.0%} |"
        for check in CHECKS
        if shares[check.name] is not None
    ]
    left_out = [check.name for check in CHECKS if shares[check.name] is None]
    not_judged = f" Not judged here: {', '.join(left_out)}." if left_out else ""
    return "\n\n".join(
        [
            "## Answers\n\nGreedy answers to held-out prompts, judged by rules: none says that an "
            "answer is right. To find the right answer of four by chance is 25%.",
            "\n".join(rows),
            f"How often an answer fails, base and {default}:{not_judged}",
            "\n".join(["| an answer | base | this model |", "|---|--:|--:|", *checks]),
            f"The worst of {default}:",
            *map(_show_answer, rank_worst(judged[default], WORST)),
        ]
    )


def _describe_choices(choices: Mapping[str, Any] | None) -> str:
    if choices is None:
        return ""
    return f"{choices['accuracy']:.0%} ({choices['low']:.0%} to {choices['high']:.0%})"


def _show_answer(one: Judged) -> str:
    """A question, what was said, and what is wrong with it; as quotations, whatever they hold."""
    found = "; ".join(dict.fromkeys(finding.says for finding in one.findings))
    first = next(iter([*one.harms, *one.findings]), None)
    return "\n>\n".join(
        f"> {name}: {text}"
        for name, text in (
            ("Asked", _quote(show_around(one.line["prompt"]))),
            ("Said", _quote(show_around(one.text, first)) if one.text.strip() else "nothing"),
            ("Found", _quote(show_on_line(found)) if found else "nothing"),
        )
    )


def _quote(text: str) -> str:
    """A line as code, in which no reader of Markdown or HTML looks for markup, nor makes links of
    addresses."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {text} {fence}" if longest else f"{fence}{text}{fence}"


def _figures(evaluation: Mapping[str, Any]) -> str:
    rows = [
        "| model | size, MB | held-out loss | perplexity | KL from F16 | same top token |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    named = {"base": evaluation["base"], **evaluation["variants"]}
    for name, figures in named.items():
        rows.append(
            f"| {name} | {figures['bytes'] / 1e6:.1f} | {figures['loss']:.4f} | {figures['perplexity']:.2f} "
            f"| {_optional(figures.get('kl_mean'), '.4f')} | "
            f"{_optional(figures.get('top_token_agreement'), '.1%')} |"
        )
    counted = (
        f"{evaluation['records']} held-out records, {evaluation['tokens']} answer tokens, through "
        f"llama.cpp; KL and top token on {evaluation['kl_tokens']} of them"
    )
    return f"## Figures\n\nMeasured on {counted}; loss in nats per token.\n\n" + "\n".join(rows)


def _data(card: Mapping[str, Any]) -> str:
    counts = card["counts"]
    losses = Losses.of(counts, card["dropped_by_reason"])
    lost = f" {losses.text()}." if losses.is_large else ""
    changes = ", ".join(f"{kind} in {count:,}" for kind, count in card["changed_texts"].items())
    changed = f" Texts were changed (records): {changes}." if changes else ""
    return (
        "## Data\n\n"
        f"{counts['kept']} of {counts['read']} records kept: {counts['train']} to train, "
        f"{counts['validation']} to validate, {counts['test']} held out.{lost}{changed}"
    )


def _training(training: Mapping[str, Any]) -> str:
    text = f"## Training\n\n{training['steps']} steps, best at step {training['best_step']}"
    before, after = training["validation_loss_before"], training["validation_loss_after"]
    if before is None or after is None:
        return f"{text}; no records were kept to validate."
    return f"{text}; validation loss {before:.4f} before, {after:.4f} after."


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
