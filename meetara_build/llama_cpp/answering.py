"""One base in memory, many adapters beside it, and answers with one of them or with none.

Nothing that was read for one answer is used for another: the attention cache is emptied and the
adapter set before each. So an answer depends on its prompt, its adapter and the number of threads
alone, whatever was answered before it.

Each adapter that is loaded makes llama.cpp's graphs larger, by about a third of the adapter's own
size in all: so only the last few are loaded, and of the others the files are held open, which is as
much as to have them: what a build puts in their place is another file.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as ll

from meetara_build.errors import ArtifactError, ProofError
from meetara_build.llama_cpp.model import Floats, Model, last_words, use_adapter

STEP = 256
"""Tokens of a prompt that are read at once: what bounds memory, and how soon an answer that nobody
waits for any more is given up."""

LOADED = 8
"""Adapters that are loaded at once; another one comes from its file, mostly out of the page
cache."""

Choose = Callable[[Floats], int]
"""The next token, from the logits over the vocabulary."""


class Adapter:
    """An adapter whose file is held open, loaded or not."""

    def __init__(self, lora: Path) -> None:
        self.file = lora.open("rb")
        # Opened by this name it is the file that is held, whatever has its old name now.
        self.path = Path(f"/dev/fd/{self.file.fileno()}")
        self.name = lora.name


class Answering:
    """A model with a context of so many tokens, in which answers are written one after another."""

    def __init__(self, path: Path, most: int, *, threads: int) -> None:
        """Load the model; its context has at most ``most`` tokens, and no more than the model was
        trained with.

        Raises:
            ArtifactError: llama.cpp cannot load the file, or make room for the context.
        """
        self.model = Model(path)
        self.length = min(most, self.model.trained_context)
        params = ll.llama_context_default_params()
        params.n_ctx = self.length
        params.n_batch = params.n_ubatch = min(STEP, self.length)
        params.n_seq_max = params.n_outputs_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        try:
            self._context = self.model.open_context(params)
        except ArtifactError:
            self.model.close()
            raise
        self._batch = ll.llama_batch_init(STEP, 0, 1)
        self._loaded: dict[Adapter, Any] = {}

    def close(self) -> None:
        """Give the memory back, that of all adapters too."""
        if self._context:
            ll.llama_batch_free(self._batch)
            ll.llama_free(self._context)
            self._context = None
            self.model.close()

    def load(self, lora: Path) -> Adapter:
        """An adapter on this model.

        Raises:
            ProofError: llama.cpp cannot load it.
        """
        adapter = Adapter(lora)
        try:
            self._have_loaded(adapter)
        except ProofError as error:
            adapter.file.close()
            raise ProofError(str(error).replace(adapter.path.name, adapter.name, 1)) from None
        return adapter

    def forget(self, adapter: Adapter) -> None:
        """Give an adapter's memory back, and its file."""
        self._unload(adapter)
        adapter.file.close()

    def _have_loaded(self, adapter: Adapter | None) -> Any:
        """llama.cpp's own handle of an adapter, which becomes the last one that was used."""
        if adapter is None:
            return None
        if adapter not in self._loaded and len(self._loaded) >= LOADED:
            self._unload(next(iter(self._loaded)))
        handle = self._loaded.pop(adapter, None) or self.model.load_adapter(adapter.path)
        self._loaded[adapter] = handle
        return handle

    def _unload(self, adapter: Adapter) -> None:
        if adapter in self._loaded:
            use_adapter(self._context, None)
            ll.llama_adapter_lora_free(self._loaded.pop(adapter))

    def write(
        self, prompt: Sequence[int], adapter: Adapter | None, choose: Choose
    ) -> Iterator[int]:
        """Tokens that follow a prompt, without an end until the context is full; whoever takes them
        ends it. ``adapter`` None is the base alone.

        Between two steps of a long prompt ``-1`` is yielded, so that reading it can be ended too.

        Raises:
            ArtifactError: llama.cpp fails to decode.
            ProofError: it can no longer load the adapter.
            ValueError: the prompt is empty, or leaves no room in the context.
        """
        if not 0 < len(prompt) < self.length:
            raise ValueError(f"{len(prompt)} tokens in a context of {self.length}")
        ll.llama_memory_clear(ll.llama_get_memory(self._context), True)
        use_adapter(self._context, self._have_loaded(adapter))
        for start in range(0, len(prompt), STEP):
            if start:
                yield -1
            piece = prompt[start : start + STEP]
            self._decode(piece, start, asks=start + STEP >= len(prompt))
        for position in range(len(prompt), self.length + 1):
            pointer = ll.llama_get_logits_ith(self._context, -1)
            token = choose(np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab,)))
            yield token
            if position < self.length:
                self._decode([token], position, asks=True)

    def _decode(self, tokens: Sequence[int], start: int, *, asks: bool) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for at, token in enumerate(tokens):
            batch.token[at], batch.pos[at] = token, start + at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            batch.logits[at] = asks and at == len(tokens) - 1
        if (code := ll.llama_decode(self._context, batch)) != 0:
            raise ArtifactError(
                f"{self.model.path.name}: llama.cpp failed to decode (code {code}): {last_words()}"
            )
