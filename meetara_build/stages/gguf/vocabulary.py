"""How a Hugging Face tokenizer is written into a GGUF file.

llama.cpp has its own tokenizers. It cuts text by one of a fixed list of regular expressions, named
by the key ``tokenizer.ggml.pre``; its converter knows which one belongs to a published tokenizer by
a hash. For any other tokenizer a name is guessed here from ``tokenizer.json``; ``proof.py`` then
shows whether it cuts as the original does, and tries the other names if not.

What the converter itself does for its models is reached by a method of theirs with a private name,
and keys that it has set are set anew in its writer's table; tried with the converter of
llama-cpp-python 0.3.36.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import gguf
from transformers import PreTrainedTokenizerBase

from meetara_build.errors import ProofError
from meetara_build.training.chat import render, turn_end
from meetara_build.training.turns import is_control

PRE = gguf.Keys.Tokenizer.PRE
"""The key that names the cut."""
Kind = Literal["byte-level BPE", "SentencePiece BPE", "tokenizer.model"]

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_START = r"[^\r\n\p{L}\p{N}]?"
_CASED_TAIL = _TAIL.replace(r"[\r\n]*", r"[\r\n/]*")
_BY_REGEX = {
    f"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*" + r"|\p{N}" + _CASED_TAIL: "tekken",
    f"{_START}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_START}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    + r"|\p{N}{1,3}"
    + _CASED_TAIL: "gpt-4o",
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _TAIL: "smaug-bpe",
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL: "qwen2",
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _TAIL: "ufakzeka",
}
"""Expressions of ``Split`` steps, as published models write them, and the name of the same cut in
llama.cpp."""

CUTS = (
    *(
        "gpt-2",
        "llama-bpe",
        "smaug-bpe",
        "qwen2",
        "smollm",
        "gpt-4o",
        "tekken",
        "ufakzeka",
        "qwen35",
        "seed-coder",
    ),
    *(
        "deepseek-v3",
        "minicpm5",
        "jais-2",
        "bailingmoe",
        "glm4",
        "falcon",
        "mpt",
        "deepseek-llm",
        "deepseek-coder",
    ),
    *(
        "granite-embed-multi-97m",
        "tiny_aya",
        "youtu",
        "exaone-moe",
        "laguna",
        "bloom",
        "viking",
        "default",
    ),
)
"""One name for each different cut of llama.cpp's ``llm_tokenizer_bpe``; its special cases are left
out."""


@dataclass(frozen=True)
class Vocabulary:
    """What the GGUF file has to say so that llama.cpp tokenizes as transformers does.

    ``pre`` is the name of the cut, None where there is none. ``adds_bos`` and ``adds_eos`` are what
    is put around every text, by ``find_added``. ``eot`` ends an assistant's turn:
    llama.cpp stops at it whatever the token is called, where it else goes by a list of names.
    ``rstrip`` tells that special tokens swallow the spaces after them (Phi-3), which llama.cpp does
    for models whose name says "phi-3".
    """

    kind: Kind
    pre: str | None
    adds_bos: bool
    adds_eos: bool
    space_prefix: bool
    bos: int | None
    eos: int | None
    eot: int | None
    rstrip: bool
    size: int

    @classmethod
    def of(cls, folder: Path, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Read a model folder's tokenizer.

        Raises:
            ProofError: llama.cpp has no such tokenizer, or cannot add the tokens that this one adds
                around a text.
        """
        written = _describe_tokenizer(folder, tokenizer)
        kind = _kind(folder, written)
        adds_bos, adds_eos = find_added(tokenizer)
        return cls(
            kind=kind,
            pre=_guess(written) if kind == "byte-level BPE" else None,
            adds_bos=adds_bos,
            adds_eos=adds_eos,
            space_prefix=_prepends_space(written),
            bos=tokenizer.bos_token_id,
            eos=tokenizer.eos_token_id,
            eot=turn_end(tokenizer) if tokenizer.chat_template else None,
            rstrip=any(token.rstrip for token in tokenizer.added_tokens_decoder.values()),
            size=max(tokenizer.get_vocab().values()) + 1,
        )

    def cut_by(self, pre: str | None) -> "Vocabulary":
        """The same with another cut."""
        return replace(self, pre=pre)

    def write(self, model: Any, official: Any) -> None:
        """Put tokens, types, merges and special tokens into a converter's writer; ``official`` is
        its own way.

        Raises:
            ProofError: two tokens are written alike, which llama.cpp answers with an abort.
        """
        if self.kind == "byte-level BPE":
            model._set_vocab_gpt2()
        elif self.kind == "SentencePiece BPE":
            _write_sentencepiece(model)
        else:
            official()
        writer = model.gguf_writer
        keys = gguf.Keys.Tokenizer
        _put(writer, keys.ADD_BOS, self.adds_bos, gguf.GGUFValueType.BOOL)
        _put(writer, keys.ADD_EOS, self.adds_eos, gguf.GGUFValueType.BOOL)
        if self.kind != "byte-level BPE":
            _put(writer, keys.ADD_PREFIX, self.space_prefix, gguf.GGUFValueType.BOOL)
        for key, token in (
            (keys.BOS_ID, self.bos),
            (keys.EOS_ID, self.eos),
            (keys.EOT_ID, self.eot),
        ):
            if token is not None:
                _put(writer, key, token, gguf.GGUFValueType.UINT32)
        _refuse_twins(writer.kv_data[0][keys.LIST].value)


def _put(writer: Any, key: str, value: Any, kind: gguf.GGUFValueType) -> None:
    """Set a key, whether or not the converter has set it already."""
    writer.kv_data[0][key] = gguf.gguf_writer.GGUFValue(value=value, type=kind)


def _describe_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The tokenizer as transformers really runs it: its classes may differ from the file they were
    given."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return dict(json.loads(backend.to_str()))
    file = folder / "tokenizer.json"
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else {}


def _kind(folder: Path, written: dict[str, Any]) -> Kind:
    model = written.get("model", {})
    steps = _steps(written.get("pre_tokenizer"), "pretokenizers")
    if model.get("type") == "BPE" and any(step["type"] == "ByteLevel" for step in steps):
        return "byte-level BPE"
    if model.get("type") == "BPE" and model.get("byte_fallback"):
        return "SentencePiece BPE"
    if (folder / "tokenizer.model").is_file():
        return "tokenizer.model"
    kind = model.get("type", "unknown")
    raise ProofError(
        f"the base's tokenizer is of a kind ('{kind}') that llama.cpp cannot run from "
        "tokenizer.json. Use a base with a BPE tokenizer, byte-level or with byte fallback."
    )


def _steps(step: dict[str, Any] | None, inner: str) -> Iterator[dict[str, Any]]:
    """The steps of a tokenizer's part, sequences unfolded."""
    if step is None:
        return
    if step["type"] == "Sequence":
        for part in step[inner]:
            yield from _steps(part, inner)
    else:
        yield step


def _guess(written: dict[str, Any]) -> str:
    """The most likely cut; any guess is proved before it is believed."""
    merges_first = not written["model"].get("ignore_merges", False)
    steps = list(_steps(written.get("pre_tokenizer"), "pretokenizers"))
    for step in steps:
        if step["type"] == "Split":
            pre = _BY_REGEX.get(step["pattern"].get("Regex", ""), "gpt-2")
            return "llama-bpe" if pre == "smaug-bpe" and not merges_first else pre
    if any(step["type"] == "Digits" and step.get("individual_digits") for step in steps):
        return "smollm"
    return "gpt-2"


def find_added(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """Whether a runtime is to add BOS before and EOS after every text.

    Runtimes add them to conversations too, where training has only what the chat template writes:
    BOS that the tokenizer adds is added where conversations begin with it, and EOS, which would
    stand before the answer, only without a chat template.

    Raises:
        ProofError: the tokenizer adds something else.
    """
    adds_bos, adds_eos = _around(tokenizer)
    if not tokenizer.chat_template:
        return adds_bos, adds_eos
    asked = render(tokenizer, [{"role": "user", "content": "x"}], ask=True)
    return adds_bos and asked.startswith(str(tokenizer.bos_token)), False


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[bool, bool]:
    """Whether the tokenizer adds BOS before and EOS after a text.

    Raises:
        ProofError: it adds something else.
    """
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    for before in ([], [tokenizer.bos_token_id]):
        for after in ([], [tokenizer.eos_token_id]):
            if full == [*before, *bare, *after]:
                return bool(before), bool(after)
    raise ProofError(
        f"the base's tokenizer writes 'a' as {full}: llama.cpp can add only BOS before and EOS "
        f"after {bare}. Change the post_processor in tokenizer.json."
    )


def _prepends_space(written: dict[str, Any]) -> bool:
    for step in _steps(written.get("normalizer"), "normalizers"):
        if step["type"] == "Prepend":
            return True
    steps = _steps(written.get("pre_tokenizer"), "pretokenizers")
    return any(
        step["type"] == "Metaspace" and step.get("prepend_scheme") != "never" for step in steps
    )


def _write_sentencepiece(model: Any) -> None:
    """A ``tokenizer.json`` in the manner of Llama 2: BPE over ``▁`` for space, unknown characters
    as bytes.

    llama.cpp joins the pair whose result has the highest score, transformers the pair that was
    learnt first: a token's score is thus the rank of the first merge that makes it, negated.
    """
    written = json.loads((model.dir_model / "tokenizer.json").read_text("utf-8"))
    part = written["model"]
    size = max(model.hparams.get("vocab_size", 0), len(part["vocab"]))
    tokens = [f"[PAD{i}]" for i in range(size)]
    scores = [-1e6] * size
    types = [gguf.TokenType.UNUSED] * size
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(part["merges"]):
        ranks.setdefault("".join(pair.split(" ") if isinstance(pair, str) else pair), rank)
    for token, index in part["vocab"].items():
        tokens[index] = token
        scores[index] = -float(ranks.get(token, 1e6))
        is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        types[index] = gguf.TokenType.BYTE if is_byte else gguf.TokenType.NORMAL
    for added in written.get("added_tokens", []):
        index = added["id"]
        tokens[index] = added["content"]
        control = is_control(added["content"], added["special"])
        types[index] = gguf.TokenType.CONTROL if control else gguf.TokenType.USER_DEFINED
    if (unknown := part["vocab"].get(part.get("unk_token"))) is not None:
        types[unknown] = gguf.TokenType.UNKNOWN
    writer = model.gguf_writer
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    gguf.SpecialVocab(model.dir_model, n_vocab=size).add_to_gguf(writer)


def _refuse_twins(tokens: list[str | bytes]) -> None:
    seen: dict[bytes, int] = {}
    for index, token in enumerate(tokens):
        raw = token.encode("utf-8") if isinstance(token, str) else bytes(token)
        if raw in seen:
            text = raw.decode("utf-8", "replace")
            raise ProofError(
                f"tokens {seen[raw]} and {index} of the base's tokenizer are both written {text!r} "
                "in a GGUF file, which llama.cpp cannot hold. Rename one of them in "
                "tokenizer.json."
            )
        seen[raw] = index
