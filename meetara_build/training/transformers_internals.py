"""What of transformers' private names is used, tried with transformers 5.23: neither has a public
one."""

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template


def attention_in_use(model: Any) -> str:
    """The name of the attention that a model runs: one that it cannot run is left aside without a
    word."""
    return str(model.config._attn_implementation)


def set_template_date(tokenizer: PreTrainedTokenizerBase, write: Callable[[str], str]) -> None:
    """Have the chat template write dates by a function of ours.

    ``apply_chat_template`` turns what it is given into text, functions too; what it has compiled is
    kept for the next call.
    """
    _compile_jinja_template(tokenizer.get_chat_template()).globals["strftime_now"] = write
