"""Proofs that a GGUF file is the model it was made from: same tokens, same conversations, same
logits."""

import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from meetara_build.errors import ArtifactError, LogitsError, ProofError
from meetara_build.llama_cpp.layout import Layout, list_differences
from meetara_build.llama_cpp.model import Floats, Model
from meetara_build.stages.gguf import probes
from meetara_build.stages.gguf.convert import OWN_KEYS, SWITCHED
from meetara_build.stages.gguf.vocabulary import CUTS, find_added
from meetara_build.training.chat import read_plain, write
from meetara_build.training.turns import is_control

F16_ROUNDING = 2.0**-11
"""By which share of a value F16 rounds it, at most."""
SHAKES = 2
MOST_UNSTABLE = 0.1
"""Of all positions compared: where more say nothing, the file is not proved by the others."""
MOST_SPECIAL = 64
"""Special tokens tried in all surroundings; models have hundreds of reserved ones, all made
alike."""


_FORMS: tuple[Literal["NFKC"], Literal["NFKD"], Literal["NFC"], Literal["NFD"]] = (
    "NFKC",
    "NFKD",
    "NFC",
    "NFD",
)


@dataclass(frozen=True)
class Case:
    """A text, and its tokens by transformers; ``add_special`` with what our file has llama.cpp add
    around a text; ``special`` where control tokens in it are tokens, as in what a template
    writes."""

    text: str
    ids: list[int]
    add_special: bool = False
    special: bool = True


def cases(
    tokenizer: PreTrainedTokenizerBase, own: Sequence[str], rendered: Sequence[str]
) -> list[Case]:
    """What both tokenizers are compared on: general texts, special tokens, the domain's texts,
    conversations.

    llama.cpp does not normalise Unicode. Where a tokenizer does (Qwen: NFC), llama.cpp is given the
    normalised text: people type, and data sets hold, normalised text already.
    """
    normal = _normaliser(tokenizer)
    added = list(tokenizer.added_tokens_decoder.values())[:MOST_SPECIAL]
    special = [token.content for token in added]
    as_text = [
        text
        for token in added
        if is_control(token.content, token.special)
        for text in probes.with_token(token.content)
    ]
    plain = [
        *probes.texts(),
        *own,
        *rendered,
        *_from_vocabulary(tokenizer),
        *(text for token in special for text in probes.with_token(token)),
    ]
    around = ["", "a", *own[:5], *probes.texts()[:20]]
    return [
        *_by_transformers(tokenizer, plain, normal, False),
        *_by_transformers(tokenizer, around, normal, True),
        *(Case(normal(text), read_plain(tokenizer, text), special=False) for text in as_text),
    ]


def own_cases(
    tokenizer: PreTrainedTokenizerBase, own: Sequence[str], rendered: Sequence[str]
) -> list[Case]:
    """The domain's own texts and conversations, where all else was compared for its base."""
    normal = _normaliser(tokenizer)
    return [
        *_by_transformers(tokenizer, [*own, *rendered], normal, False),
        *_by_transformers(tokenizer, own[:5], normal, True),
    ]


def prove_same_keys(label: str, ours: Layout, base: Layout) -> None:
    """Refuse a domain's file whose keys, tokenizer and template among them, are not its base's byte
    for byte.

    Raises:
        ProofError: naming the keys.
    """
    if found := list_differences(ours, base, OWN_KEYS):
        raise ProofError(
            f"{label}: {', '.join(found[:5])} differ from those of the base's own file, for which "
            "they were proved. Build the base's gguf step again, then this."
        )


def _from_vocabulary(tokenizer: PreTrainedTokenizerBase, count: int = 200) -> list[str]:
    """Tokens of this vocabulary thrown together, where its own merges may run across a cut.

    Plain ASCII only: on rare characters the Unicode tables of both sides may differ, which says
    nothing of the cut.
    """
    triples = np.random.default_rng(0).integers(0, len(tokenizer), (8 * count, 3)).tolist()
    texts = (str(tokenizer.decode(ids, skip_special_tokens=True)) for ids in triples)
    return list(islice((text for text in texts if text.isascii()), count))


def _by_transformers(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    normal: Callable[[str], str],
    add_special: bool,
) -> Iterator[Case]:
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    adds_bos, adds_eos = find_added(tokenizer) if add_special else (False, False)
    before = [tokenizer.bos_token_id] if adds_bos else []
    after = [tokenizer.eos_token_id] if adds_eos else []
    for text, ids in zip(texts, encoded, strict=True):
        yield Case(normal(text), [*before, *map(int, ids), *after], add_special)


def _normaliser(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], str]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    written = (
        json.dumps(json.loads(backend.to_str()).get("normalizer")) if backend is not None else ""
    )
    for form in _FORMS:
        if f'"{form}"' in written:
            return partial(unicodedata.normalize, form)
    return str


def first_difference(model: Model, wanted: Iterable[Case]) -> str | None:
    """The first text that llama.cpp cuts otherwise, told with both cuts; None where all are the
    same."""
    for case in wanted:
        ids = model.tokenize(case.text, add_special=case.add_special, special=case.special)
        if ids != case.ids:
            return (
                f"{case.text[:80]!r} is {case.ids[:24]} by transformers and {ids[:24]} by llama.cpp"
            )
    return None


def search_cut(
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    wanted: Sequence[Case],
    name: str,
    *,
    cuts: bool,
    rstrip: bool,
) -> dict[str, str] | None:
    """Metadata with which llama.cpp cuts as transformers does, found by trying; None where there is
    none.

    What is found so has to pass many more texts than a guess that has the tokenizer's own
    expression behind it.
    """
    more = _by_transformers(
        tokenizer, _from_vocabulary(tokenizer, 3000), _normaliser(tokenizer), False
    )
    wanted = [*wanted, *more]
    names = [name, SWITCHED.format(name)] if rstrip else [name]
    for pre, label in product(CUTS if cuts else ("default",), names):
        try:
            with Model(
                path, vocab_only=True, overrides={"tokenizer.ggml.pre": pre, "general.name": label}
            ) as model:
                if first_difference(model, wanted) is None:
                    return {"pre": pre, "name": label}
        except ArtifactError:
            continue
    return None


def refuse_tokens(difference: str) -> ProofError:
    """The error for a tokenizer that llama.cpp has no equal for."""
    return ProofError(
        f"llama.cpp cuts text otherwise than the base's tokenizer: {difference}. None of "
        "llama.cpp's ways to cut fits. Use a base with a tokenizer that llama.cpp knows (GPT-2's, "
        "Llama 3's, Qwen 2's or SmolLM's pre_tokenizer)."
    )


def prove_special(model: Model, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a file whose BOS or EOS differs from the tokenizer's.

    Raises:
        ProofError: with both ids.
    """
    for name in ("bos", "eos"):
        ours, theirs = model.special_token(name), getattr(tokenizer, f"{name}_token_id")
        if theirs is not None and ours != theirs:
            raise ProofError(
                f"{name.upper()} is token {theirs} by transformers and {ours} in "
                f"{model.path.name}. Set {name}_token in tokenizer_config.json to a token of the "
                "vocabulary."
            )


def prove_turn_end(model: Model, token: int | None) -> None:
    """Refuse a file that goes on generating after the token that ends an assistant's turn.

    Raises:
        ProofError: naming the token.
    """
    if token is not None and not model.is_end(token):
        raise ProofError(
            f"{model.path.name}: {model.text_of(token)!r} ends an assistant's turn in the base's "
            "chat template, and llama.cpp does not stop at it: mend chat_template.jinja, or "
            "choose another base."
        )


def render_conversations(
    tokenizer: PreTrainedTokenizerBase, system: str | None
) -> list[tuple[Any, bool, str | None]]:
    """Conversations, whether they end with a question, and how transformers writes them (None: it
    refuses)."""
    if tokenizer.chat_template is None:
        return []
    return [
        (turns, ask, _or_none(partial(write, tokenizer, turns, ask=ask)))
        for turns, ask in product(probes.conversations(system), (False, True))
    ]


def prove_template(model: Model, conversations: Sequence[tuple[Any, bool, str | None]]) -> int:
    """Refuse a file whose chat template writes a conversation otherwise; how many it writes.

    Raises:
        ProofError: with the first place where the two differ.
    """
    if conversations and "tokenizer.chat_template" not in model.metadata():
        raise ProofError(
            f"{model.path.name}: the base's chat template is missing. Keep chat_template.jinja "
            "beside tokenizer.json."
        )
    for turns, ask, theirs in conversations:
        ours = _or_none(partial(model.render, turns, ask=ask))
        if ours != theirs:
            raise ProofError(
                f"{model.path.name}: the chat template writes {_place(theirs, ours)} for "
                f"{turns[-1]['role']}'s turn {len(turns)}. Simplify the template: llama.cpp "
                "renders it with Jinja's own filters only."
            )
    return sum(theirs is not None for _, _, theirs in conversations)


def _or_none(render: Callable[[], str]) -> str | None:
    try:
        return render()
    except Exception:  # templates refuse roles by raising whatever Jinja function they like
        return None


def _place(theirs: str | None, ours: str | None) -> str:
    if theirs is None or ours is None:
        side = "transformers" if theirs is None else "llama.cpp"
        return f"text, where {side} refuses,"
    at = next(
        (i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b),
        min(len(theirs), len(ours)),
    )
    return (
        f"{theirs[at - 20 : at + 20]!r} by transformers and {ours[at - 20 : at + 20]!r} by "
        "llama.cpp"
    )


def prompts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], vocabulary: int, limit: int
) -> list[list[int]]:
    """Token lists to compare logits on: real texts, and 64 tokens from all over the vocabulary."""
    ids = [list(tokenizer(text)["input_ids"])[:limit] for text in texts]
    anywhere = np.random.default_rng(0).integers(0, vocabulary, 64).tolist()
    return [*(tokens for tokens in ids if len(tokens) > 1), anywhere[:limit]]


def torch_logits(model: nn.Module, ids: Sequence[int]) -> Floats:
    """Logits of one text by transformers, shape (tokens, vocabulary)."""
    with torch.inference_mode():
        logits: Floats = model(torch.tensor([list(ids)]), use_cache=False).logits[0].float().numpy()
    return logits


def distances(theirs: Floats, ours: Floats) -> Floats:
    """How far logits are from those they should be, for each position, as a share of their own
    spread.

    Both are centred first, for softmax ignores a constant; a share does not depend on the scale of
    a model's logits.
    """
    wanted = theirs - theirs.mean(axis=1, keepdims=True)
    missed = (ours - ours.mean(axis=1, keepdims=True)) - wanted
    shares: Floats = np.linalg.norm(missed, axis=1) / np.linalg.norm(wanted, axis=1)
    return shares


def prove_logits(
    label: str,
    reference: str,
    pairs: Iterable[tuple[Floats, Floats]],
    bound: float,
    *,
    routed: bool = False,
    hint: str = "",
    find_unstable: Callable[[], npt.NDArray[np.bool_]] | None = None,
) -> dict[str, float]:
    """Refuse logits further from those of the ``reference`` than ``bound`` at any position.

    ``routed``: in a mixture of experts rounding sends a token now and then to another expert, so
    the bound holds for nine positions in ten. ``hint`` is what may be the matter with this model.
    ``find_unstable`` is asked where the bound is missed: at which positions the reference does not
    hold to itself. They say nothing of the file; where they are few the others decide.

    Returns:
        The worst and the mean distance, the number of positions, and how many unstable ones were
        left out, if any.

    Raises:
        ProofError: with figure and bound.
    """
    shares = np.concatenate([distances(theirs, ours) for theirs, ours in pairs])
    left_out: dict[str, float] = {}
    if find_unstable is not None and bound < shares.max() < math.inf:
        stable = ~find_unstable()
        if not stable.all() and stable.mean() >= 1 - MOST_UNSTABLE:
            left_out = {"unstable_positions": int((~stable).sum())}
            shares = shares[stable]
    worst = float(np.quantile(shares, 0.9) if routed else shares.max())
    if not worst <= bound:
        kind = ProofError if math.isfinite(worst) else LogitsError
        raise kind(
            f"{label}: logits differ from those of {reference} by {worst:.2g} of their spread, "
            f"more than {bound:g}. {hint}The file is not the model: build it again; if it stays "
            "so, llama.cpp does not support this base fully (or its values do not fit into F16). "
            "Only for a small excess raise gguf.logits_bound."
        )
    return {
        "worst": round_figure(worst),
        "mean": round_figure(float(shares.mean())),
        "positions": len(shares),
        **left_out,
    }


def find_unstable(
    model: nn.Module, prompts: Sequence[Sequence[int]], logits: Sequence[Floats], bound: float
) -> npt.NDArray[np.bool_]:
    """At which positions of some texts a model's own logits move by a quarter of ``bound`` or more
    once its embeddings are shaken by as much as F16 rounds: no F16 file can be held to it there.

    It is so now and then in text that no one writes, where few positions before hold it steady.
    """
    embeddings = cast(PreTrainedModel, model).get_input_embeddings()
    moved = [np.zeros(len(one), dtype=bool) for one in logits]
    for seed in range(SHAKES):
        draw = torch.Generator().manual_seed(seed)

        def shake(_: nn.Module, __: object, made: Tensor, draw: torch.Generator = draw) -> Tensor:
            return made * (1 + F16_ROUNDING * (2 * torch.rand(made.shape, generator=draw) - 1))

        hook = embeddings.register_forward_hook(shake)
        try:
            for at, (ids, theirs) in enumerate(zip(prompts, logits, strict=True)):
                moved[at] |= distances(theirs, torch_logits(model, ids)) >= bound / 4
        finally:
            hook.remove()
    return np.concatenate(moved)


def round_figure(figure: float) -> float:
    """Three digits: more would differ from machine to machine."""
    return float(f"{figure:.3g}")
