"""llama.cpp as this package uses it: load quietly, tokenize, render, logits, generate.

Importing this module runs nothing of llama.cpp, so a process that has imported it may be forked;
the first ``Model`` starts the backend.
"""

import ctypes
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property, partial
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from llama_cpp import llama_cpp as ll
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from meetara_build.errors import ArtifactError, ProofError
from meetara_build.training.turns import (
    Control,
    Controls,
    place_system_text,
    takes_system,
    write_date,
)

Floats = npt.NDArray[np.float32]

_LOG: deque[str] = deque(maxlen=5000)
_WARN, _ERROR = 3, 4
_LOGITS_BUFFER = 1 << 26
"""Bytes of logits that one decoding step may return: what bounds memory for large vocabularies."""


class _Closing(ABC):
    """What is closed at the end of a ``with``."""

    @abstractmethod
    def close(self) -> None:
        """Give the memory back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Model(_Closing):
    """A GGUF file opened by llama.cpp.

    ``vocab_only`` reads no weights. ``overrides`` replaces string metadata while loading, without
    touching the file.

    Raises:
        ArtifactError: llama.cpp cannot load the file.
    """

    def __init__(
        self, path: Path, *, vocab_only: bool = False, overrides: Mapping[str, str] | None = None
    ) -> None:
        start_backend()
        self.path = path
        params = ll.llama_model_default_params()
        params.vocab_only = vocab_only
        # ctypes copies the pointer, not the array: the array has to live until the model is loaded.
        replaced = _overrides(overrides or {})
        params.kv_overrides = replaced
        self._model = ll.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise ArtifactError(f"{path.name}: llama.cpp cannot load this file: {last_words()}.")
        self._vocab = ll.llama_model_get_vocab(self._model)
        self.n_vocab = int(ll.llama_vocab_n_tokens(self._vocab))
        self.trained_context = int(ll.llama_model_n_ctx_train(self._model))

    def close(self) -> None:
        """Give the memory back; the object is of no use afterwards."""
        if self._model:
            ll.llama_model_free(self._model)
            self._model = None

    def special_token(self, name: str) -> int | None:
        """Id of the ``bos``, ``eos``, ``pad``, … token, or None where the file names none."""
        token = int(getattr(ll, f"llama_vocab_{name}")(self._vocab))
        return None if token < 0 else token

    def is_end(self, token: int) -> bool:
        """Whether generation stops at this token."""
        return bool(ll.llama_vocab_is_eog(self._vocab, token))

    def is_control(self, token: int) -> bool:
        """Whether a token is no text, but opens or closes a turn, or the like."""
        return bool(ll.llama_vocab_is_control(self._vocab, token))

    def bytes_of(self, token: int) -> bytes:
        """What a token adds to a text in UTF-8, of which it may be a part of a character; nothing
        for a control token."""
        buffer = ctypes.create_string_buffer(32)
        size = ll.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = ll.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:size]

    def text_of(self, token: int | None) -> str:
        """A token as the vocabulary writes it; empty for None."""
        raw = ll.llama_vocab_get_text(self._vocab, token) if token is not None else None
        return raw.decode("utf-8", "replace") if raw else ""

    def metadata(self) -> dict[str, str]:
        """All keys that hold one value, as text."""
        keys = range(ll.llama_model_meta_count(self._model))
        return {
            _read(ll.llama_model_meta_key_by_index, self._model, i): _read(
                ll.llama_model_meta_val_str_by_index, self._model, i
            )
            for i in keys
        }

    def tokenize(self, text: str, *, add_special: bool = False, special: bool = True) -> list[int]:
        """Token ids; control tokens written in the text are recognised, as transformers does, or
        with ``special`` false are text."""
        raw = text.encode("utf-8")
        room = len(raw) + 8
        while True:
            ids = (ll.llama_token * room)()
            count = ll.llama_tokenize(self._vocab, raw, len(raw), ids, room, add_special, special)
            if count >= 0:
                return list(ids[:count])
            room = -count

    def render(self, messages: Sequence[Mapping[str, str]], *, ask: bool) -> str:
        """A conversation as it is through the file's own chat template, as llama-cpp-python renders
        it; the date is always the same.

        Raises:
            Exception: whatever the template raises, as for a role that it does not take.
        """
        formatter = _Formatter(
            template=self.metadata()["tokenizer.chat_template"],
            eos_token=self.text_of(self.special_token("eos")),
            bos_token=self.text_of(self.special_token("bos")),
            add_generation_prompt=ask,
        )
        return str(formatter(messages=list(messages)).prompt)  # type: ignore[arg-type]

    def prompt(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids of a conversation up to where the answer begins, as a training on the same base
        has them.

        Raises:
            Exception: whatever the template raises.
        """
        turns = place_system_text(self.controls.hide(messages), self._takes_system)
        pieces = self.controls.cut_pieces(self.render(turns, ask=True))
        return [
            token for piece in pieces for token in self.tokenize(piece.text, special=piece.special)
        ]

    @cached_property
    def controls(self) -> Controls:
        """The tokens that are none where they stand in a turn's text."""
        kinds = (
            (token, int(ll.llama_vocab_get_attr(self._vocab, token)))
            for token in range(self.n_vocab)
        )
        return Controls(
            Control(
                self.text_of(token),
                bool(kind & ll.LLAMA_TOKEN_ATTR_LSTRIP),
                bool(kind & ll.LLAMA_TOKEN_ATTR_RSTRIP),
            )
            for token, kind in kinds
            if kind & (ll.LLAMA_TOKEN_ATTR_CONTROL | ll.LLAMA_TOKEN_ATTR_UNKNOWN)
        )

    @cached_property
    def _takes_system(self) -> bool:
        return takes_system(partial(self.render, ask=False))

    def open_context(self, params: Any) -> Any:
        """A context of llama.cpp's with these settings, which whoever asks for it frees.

        Raises:
            ArtifactError: there is no room for it.
        """
        context = ll.llama_init_from_model(self._model, params)
        if not context:
            raise ArtifactError(
                f"{self.path.name}: no context of {params.n_ctx} tokens: {last_words()}"
            )
        return context

    def add_adapter(self, context: Any, lora: Path, scale: float) -> None:
        """Have a context of this model compute with an adapter, added ``scale`` times.

        Raises:
            ProofError: llama.cpp cannot load it.
        """
        use_adapter(context, self.load_adapter(lora), scale)

    def load_adapter(self, lora: Path) -> Any:
        """An adapter on this model in memory, for ``use_adapter``; the model frees it, if nobody
        does before.

        Raises:
            ProofError: llama.cpp cannot load it.
        """
        adapter = ll.llama_adapter_lora_init(self._model, str(lora).encode())
        if not adapter:
            raise ProofError(f"{lora.name}: llama.cpp cannot load this adapter: {last_words()}")
        return adapter

    def session(
        self,
        context: int,
        *,
        threads: int,
        exact: bool = False,
        lora: Path | None = None,
        scale: float = 1.0,
    ) -> "Session":
        """A context of ``context`` tokens; ``exact`` keeps the attention cache in float32, for
        proofs.

        ``lora`` is added ``scale`` times: -1 takes a merged adapter out again.
        """
        session = Session(self, context, threads=threads, exact=exact)
        if lora is not None:
            session.apply(lora, scale)
        return session


class _Formatter(Jinja2ChatFormatter):
    """Tells a template that asks for the date what transformers' side tells it."""

    strftime_now = staticmethod(write_date)


class Session(_Closing):
    """One sequence at a time through a model.

    What stands at the start of two texts, such as a system prompt, is read once. A session has one
    model and one adapter for all its life: what is kept of one is nothing to another.
    """

    def __init__(self, model: Model, context: int, *, threads: int, exact: bool) -> None:
        self.model = model
        self.decoded = 0
        self._kept: list[int] = []
        self.step = max(1, min(context, 512, _LOGITS_BUFFER // (4 * model.n_vocab)))
        params = ll.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = self.step
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        if exact:
            params.type_k = params.type_v = ll.GGML_TYPE_F32
            params.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = model.open_context(params)
        self._batch = ll.llama_batch_init(self.step, 0, 1)

    def close(self) -> None:
        """Give the memory back."""
        if self._context:
            ll.llama_batch_free(self._batch)
            ll.llama_free(self._context)
            self._context = None

    def stream(self, ids: Sequence[int], wanted: Sequence[bool] | None = None) -> Iterator[Floats]:
        """Logits of one text from its start, in pieces of shape (positions, vocabulary).

        ``wanted[i]`` asks for the logits *after* token ``i``; None asks for all. A piece is a view
        into llama.cpp's own memory: use it before taking the next one.
        """
        for start in range(self._keep_beginning(ids, wanted), len(ids), self.step):
            piece = ids[start : start + self.step]
            asked = (
                [True] * len(piece) if wanted is None else list(wanted[start : start + self.step])
            )
            rows = self._decode(piece, start, asked)
            if rows:
                pointer = ll.llama_get_logits(self._context)
                yield np.ctypeslib.as_array(pointer, shape=(rows, self.model.n_vocab))

    def _keep_beginning(self, ids: Sequence[int], wanted: Sequence[bool] | None) -> int:
        """How many tokens of a text were read before, and are still in the cache; all others are
        taken out of it.

        No logits are wanted of those. Models with a state instead of a cache, or with a window that
        has moved on, cannot go back: they begin anew.
        """
        memory = ll.llama_get_memory(self._context)
        most = 0 if wanted is None else next((at for at, ask in enumerate(wanted) if ask), 0)
        pairs = zip(ids[:most], self._kept, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        self._kept = self._kept[:same]
        if (
            same
            and ll.llama_memory_seq_rm(memory, 0, same, -1)
            and ll.llama_memory_seq_pos_min(memory, 0) == 0
            and ll.llama_memory_seq_pos_max(memory, 0) == same - 1
        ):
            return same
        ll.llama_memory_clear(memory, False)
        self._kept = []
        return 0

    def logits(self, ids: Sequence[int]) -> Floats:
        """Logits after every token of a text, shape (tokens, vocabulary)."""
        return np.concatenate([piece.copy() for piece in self.stream(ids)])

    def generate(self, ids: Sequence[int], count: int) -> list[int]:
        """Up to ``count`` tokens that most likely follow, until the model ends its turn."""
        asked = [False] * (len(ids) - 1) + [True]
        row = next(self.stream(ids, asked))
        said: list[int] = []
        while True:
            token = int(np.argmax(row[-1]))
            if self.model.is_end(token):
                return said
            said.append(token)
            if len(said) == count:
                return said
            self._decode([token], len(ids) + len(said) - 1, [True])
            row = np.ctypeslib.as_array(
                ll.llama_get_logits(self._context), shape=(1, self.model.n_vocab)
            )

    def _decode(self, ids: Sequence[int], start: int, asked: Sequence[bool]) -> int:
        """Put tokens through the model at positions from ``start`` on; how many rows of logits came
        out."""
        batch = self._batch
        batch.n_tokens = len(ids)
        for i, (token, ask) in enumerate(zip(ids, asked, strict=True)):
            batch.token[i] = token
            batch.pos[i] = start + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = ask
        self._kept = self._kept[:start]
        if (code := ll.llama_decode(self._context, batch)) != 0:
            self._kept = []
            raise ArtifactError(
                f"{self.model.path.name}: llama.cpp failed to decode (code {code}): {last_words()}"
            )
        self._kept += ids
        self.decoded += len(ids)
        return sum(asked)

    def apply(self, lora: Path, scale: float) -> None:
        """Add an adapter to the model's weights, for this session only, before anything is read."""
        assert not self.decoded, "what was read without the adapter would be taken for its own"
        self.model.add_adapter(self._context, lora, scale)


def use_adapter(context: Any, adapter: Any, scale: float = 1.0) -> None:
    """Have a context compute with this adapter on its model alone, or with none for None; what it
    has read before stays as it was read."""
    count = 0 if adapter is None else 1
    one = (ll.llama_adapter_lora_p_ctypes * 1)(*[adapter] * count)
    ll.llama_set_adapters_lora(context, one, count, (ctypes.c_float * 1)(scale))


def last_words() -> str:
    """The last few warnings and errors that llama.cpp logged, on one line."""
    lines = " ".join("".join(_LOG).split("\n")[-6:]).split()
    return " ".join(lines) or "it gave no reason"


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect what llama.cpp warns of inside the block."""
    start_backend()
    _LOG.clear()
    lines: list[str] = []
    try:
        yield lines
    finally:
        lines += "".join(_LOG).splitlines()


@cache
def start_backend() -> None:
    """Start llama.cpp, once, with its log kept for ``last_words`` alone."""
    # Where llama.cpp aborts, it would start a debugger and fill the log with the stack of this
    # process.
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    ll.llama_log_set(_listen, ctypes.c_void_p(0))
    ll.llama_backend_init()


@ll.llama_log_callback  # type: ignore[untyped-decorator]
def _listen(level: int, text: bytes, _: Any) -> None:
    """Keep warnings and errors for ``last_words``; print nothing."""
    if level in (_WARN, _ERROR):
        _LOG.append(text.decode("utf-8", "replace"))


def _overrides(texts: Mapping[str, str]) -> Any:
    if not texts:
        return None
    array = (ll.llama_model_kv_override * (len(texts) + 1))()
    for slot, (key, text) in zip(array, texts.items(), strict=False):
        slot.tag = ll.LLAMA_KV_OVERRIDE_TYPE_STR
        slot.key = key.encode()
        slot.value.val_str = text.encode()
    return array


def _read(function: Any, handle: Any, index: int) -> str:
    """A string that llama.cpp writes into a buffer, however long."""
    buffer = ctypes.create_string_buffer(256)
    size = function(handle, index, buffer, len(buffer))
    if size >= len(buffer):
        buffer = ctypes.create_string_buffer(size + 1)
        function(handle, index, buffer, len(buffer))
    return buffer.value.decode("utf-8", "replace")
