"""What a record must be, as pandera's declared schema. `check` alone loads it: pandas takes a
second to import."""

import re

import pandera.pandas as pa
from pandera.typing import Series

SEEN = re.compile(r"[^\s\u200b-\u200f\u2060\ufeff]")


class Text(pa.DataFrameModel):
    """A row a piece of text, of whatever role: a system prompt, an Alpaca input, a topic."""

    content: Series[object] = pa.Field(nullable=False)

    @pa.check("content", element_wise=True, error="is not text")
    def is_text(cls, content: object) -> bool:
        """No number, list or object."""
        return isinstance(content, str)

    @pa.check("content", element_wise=True, error="holds a NUL character")
    def holds_no_nul(cls, content: object) -> bool:
        """Neither a terminal nor llama.cpp reads on behind one."""
        return not isinstance(content, str) or "\0" not in content


class Turn(Text):
    """A row a turn of the user or the assistant: text of which something can be seen."""

    @pa.check("content", element_wise=True, error="is empty")
    def is_seen(cls, content: object) -> bool:
        """More than spaces and characters of no width."""
        return not isinstance(content, str) or bool(SEEN.search(content))


class Conversation(pa.DataFrameModel):
    """A row a record, as the first letters of its turns' roles: [system,] user, assistant, user,
    assistant …"""

    turns: Series[str] = pa.Field(str_matches=r"^s?(ua)+$")
