"""Tokenizers of folders and files just made, or why they cannot be read."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from meetara_build.errors import ArtifactError, ProofError
from meetara_build.llama_cpp.model import Model
from meetara_build.stages.gguf.convert import tell


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face folder.

    Raises:
        ArtifactError: there is none, or it cannot be read.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True
        )
    except (
        Exception
    ) as error:  # transformers raises OSError, ValueError, TypeError and others alike
        raise ArtifactError(
            f"{folder.name}: the tokenizer cannot be read ({tell(error)[:200]}). "
            "Put tokenizer.json and tokenizer_config.json beside config.json."
        ) from error
    return tokenizer


def open_made(path: Path, *, vocab_only: bool = False) -> Model:
    """Open a file just made; a shape that llama.cpp's loader refuses shows only here."""
    try:
        return Model(path, vocab_only=vocab_only)
    except ArtifactError as error:
        raise ProofError(
            f"{error} llama.cpp does not run this shape of the architecture: choose another base."
        ) from error
