"""Small random models and tokenizers, made on the spot: nothing here is downloaded."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

CORPUS = [
    "The quick brown fox jumps over the lazy dog. Don't panic: it's only a test, isn't it?",
    "def f(x):\n    return x + 1\n\nfor i in range(10):\n    print(i, 2024, 123456)\n",
    "El niño comió piñas en la montaña. ¿Qué tal? Ça va très bien, merci.",
    "नमस्ते दुनिया, आप कैसे हैं? 你好，世界！今天天气怎么样？ Съешь же ещё этих мягких булок.",
    "Drink water, 250 ml at 10:30, 3.14 times; HTTPServer camelCase snake_case well-being... !!! ???",
    "   indented    text\n\n\nand\t\ttabs 🙂 🚀 100% $1,299.00 — “quoted”",
] * 8


def train_tokenizer(folder: Path, cut: str = "gpt2", vocabulary: int = 700, **options: Any) -> None:
    """Train a byte-level BPE on ``CORPUS`` and save it with ChatML.

    ``cut``: "gpt2", "smollm", "llama3", "qwen2", or any regular expression. Options:
    ``normaliser``, ``bos`` (adds <|endoftext|> before each text), ``ignore_merges``.
    """
    tokenizer = Tokenizer(models.BPE(ignore_merges=options.get("ignore_merges", False)))
    expression = {"llama3": LLAMA3, "qwen2": QWEN2}.get(cut, cut)
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    split = [
        pre_tokenizers.Split(Regex(expression), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    steps = {"gpt2": [whole], "smollm": [pre_tokenizers.Digits(individual_digits=True), whole]}.get(
        cut, split
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    if normaliser := options.get("normaliser"):
        tokenizer.normalizer = normaliser
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if options.get("bos"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
    _save(tokenizer, folder, bos="<|endoftext|>", eos="<|im_end|>")


def train_sentencepiece_like(folder: Path, vocabulary: int = 900) -> None:
    """A ``tokenizer.json`` as Llama 2 and Mistral have it: ``▁`` for space, bytes for unknown
    characters."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, show_progress=False, max_token_length=12
    )
    tokenizer.train_from_iterator((word for text in CORPUS for word in text.split()), trainer)
    written = json.loads(tokenizer.to_str())
    written["added_tokens"] = [token for token in written["added_tokens"] if token["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(written))
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    _save(tokenizer, folder, bos="<s>", eos="</s>", unk="<unk>")


def _save(
    tokenizer: Tokenizer, folder: Path, *, bos: str, eos: str, unk: str | None = None
) -> None:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHATML
    fast.save_pretrained(folder)


SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def make_model(folder: Path, kind: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """A random model of a ``transformers`` model type, saved beside the folder's tokenizer, and
    given back."""
    torch.manual_seed(seed)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    config = transformers.AutoConfig.for_model(
        kind,
        **{
            **SHAPE,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": None,
            **changes,
        },
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        # Fresh norms are all ones and fresh biases zero: errors in their places would not show.
        for parameter in model.parameters():
            scale = 0.1 if parameter.dim() == 1 else 0.02
            parameter.add_(torch.randn(parameter.shape) * scale)
    model.save_pretrained(folder)
    return model
