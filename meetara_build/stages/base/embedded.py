"""The embedded base: a byte-level BPE tokenizer with ChatML, and a small Llama, both made from the
corpus alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from meetara_build.errors import ConfigError
from meetara_build.stages.recipes.base import BaseRecipe, ModelShape
from meetara_build.stages.types import Metrics, checkpoint_folder
from meetara_build.training.chat import encode, read_records
from meetara_build.training.loop import Settings, train
from meetara_build.training.settings import Observer

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt "
    "%}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make(
    recipe: BaseRecipe, corpus: Path, output: Path, observe: Observer | None = None
) -> Metrics:
    """Train tokenizer and model on ``corpus.jsonl`` and write them to ``output``."""
    tokens, sizes, pretraining, seed = (
        recipe.tokenizer,
        recipe.model,
        recipe.pretraining,
        recipe.seed,
    )
    assert tokens and sizes and pretraining and seed is not None
    if recipe.chat_template != "chatml":
        raise ConfigError(
            f"base {recipe.name}: chat_template '{recipe.chat_template}': a base made here speaks "
            "chatml; say so"
        )
    records = list(read_records(corpus / "corpus.jsonl"))
    texts = (text for record in records for text in _texts(record))
    tokenizer = make_tokenizer(texts, tokens.vocab_size, sizes.positions)
    model = make_model(sizes, seed, tokens.vocab_size, tokenizer)
    examples = [encode(tokenizer, record["messages"]) for record in records]
    settings = Settings(**pretraining.model_dump(), loss_on_prompt=True, seed=seed)
    history = train(model, examples, [], settings, checkpoint_folder(output), observe)
    model.save_pretrained(output, max_shard_size="100GB")
    tokenizer.save_pretrained(output)
    parameters = sum(weight.numel() for weight in model.parameters())
    return {
        "parameters": parameters,
        "records": len(records),
        "tokens": history.tokens,
        "loss": round(history.curve[-1][1], 4),
    }


def make_tokenizer(
    texts: Iterable[str], vocab_size: int, positions: int
) -> PreTrainedTokenizerFast:
    """A byte-level BPE (Sennrich et al., arXiv 1508.07909; bytes as in GPT-2), so that no text of
    any script is unknown."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, TURN_START, TURN_END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bpe,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template=CHATML,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )


def make_model(
    sizes: ModelShape, seed: int, vocab_size: int, tokenizer: PreTrainedTokenizerFast
) -> LlamaForCausalLM:
    """A Llama with random weights, the same ones for the same seed."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        max_position_embeddings=sizes.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return LlamaForCausalLM(config)


def _texts(record: dict[str, Sequence[dict[str, str]]]) -> list[str]:
    return [message["content"] for message in record["messages"]] + [
        message["role"] for message in record["messages"]
    ]
