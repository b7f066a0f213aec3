"""Special tokens that a tokenizer knows and its model has no row for, as Gemma 3 1B's
<image_soft_token>.

No text needs them. They are taken out of the base's tokenizer, so that a text in which one is
written is read as the letters that it is, by training, by transformers and by llama.cpp alike.
"""

import json
from collections.abc import Set
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from meetara_build.errors import ConfigError
from meetara_build.outside import parse_json, show_line
from meetara_build.training.chat import encode

SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
TURNS = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]


def leave_out_surplus(
    name: str, folder: Path, tokenizer: PreTrainedTokenizerBase, rows: int
) -> PreTrainedTokenizerBase:
    """The tokenizer of a base's folder without the tokens beyond the model's ``rows``.

    Raises:
        ConfigError: texts or conversations need one of them.
    """
    surplus = _beyond(tokenizer, rows)
    if not surplus:
        return tokenizer
    _refuse_needed(name, tokenizer, rows, surplus)
    _rewrite_vocabulary(folder / "tokenizer.json", surplus)
    for file in SETTINGS:
        if (path := folder / file).exists():
            _write(path, _without(parse_json(path.read_bytes()), surplus))
    left = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if found := _beyond(left, rows):
        raise _refuse(name, found)
    return left


def _beyond(tokenizer: PreTrainedTokenizerBase, rows: int) -> set[str]:
    return {token for token, index in tokenizer.get_vocab().items() if index >= rows}


def _refuse_needed(
    name: str, tokenizer: PreTrainedTokenizerBase, rows: int, surplus: Set[str]
) -> None:
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    ends = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token}
    if needed := {token for token in surplus if token not in special or token in ends}:
        raise _refuse(name, needed)
    written = {token for token in encode(tokenizer, TURNS).ids if token >= rows}
    if written:
        raise _refuse(name, {str(tokenizer.decode([token])) for token in written})


def _refuse(name: str, tokens: Set[str]) -> ConfigError:
    shown = ", ".join(map(show_line, sorted(tokens)[:3]))
    return ConfigError(
        f"base {name}: its tokenizer knows {len(tokens)} more tokens than the model "
        f"({shown}{', …' if len(tokens) > 3 else ''}); take both from the same place, or enlarge "
        "the model's embeddings"
    )


def _rewrite_vocabulary(path: Path, surplus: Set[str]) -> None:
    if not path.exists():
        return
    written = parse_json(path.read_bytes())
    written["added_tokens"] = [
        token for token in written["added_tokens"] if token["content"] not in surplus
    ]
    vocabulary = written["model"].get("vocab")
    if isinstance(vocabulary, dict):
        written["model"]["vocab"] = {
            token: index for token, index in vocabulary.items() if token not in surplus
        }
    _write(path, written)


def _without(value: Any, tokens: Set[str]) -> Any:
    """A JSON value without what names one of some tokens: roles, lists of tokens, tables of
    them."""
    if isinstance(value, dict):
        kept = {
            key: item
            for key, item in value.items()
            if key not in tokens and not _is_one(item, tokens)
        }
        return {key: _without(item, tokens) for key, item in kept.items()}
    if isinstance(value, list):
        return [_without(item, tokens) for item in value if not _is_one(item, tokens)]
    return value


def _is_one(value: Any, tokens: Set[str]) -> bool:
    text = value.get("content") if isinstance(value, dict) else value
    return isinstance(text, str) and text in tokens


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
