"""HTML as plain text."""

import re
from html.parser import HTMLParser

BLOCKS = {
    "address",
    "article",
    "aside",
    "blockquote",
    "dd",
    "div",
    "dl",
    "dt",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "li",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "table",
    "tr",
    "ul",
}
INLINE = {
    "a",
    "abbr",
    "b",
    "big",
    "cite",
    "code",
    "del",
    "em",
    "font",
    "i",
    "img",
    "ins",
    "kbd",
    "mark",
    "q",
    "s",
    "small",
    "span",
    "strike",
    "strong",
    "sub",
    "sup",
    "td",
    "th",
    "tt",
    "u",
    "var",
}
UNSEEN = ("script", "style", "head", "title")
HTML = re.compile(
    rf"<(/({'|'.join(sorted(BLOCKS | INLINE))})\s*|(br|div|h[1-6]|hr|li|ol|p|ul)(\s[^<>]*)?/?)>",
    re.IGNORECASE,
)
"""What a text in HTML has and hardly any other: a closing tag, or the beginning of a block."""


def is_html(text: str) -> bool:
    """Whether a text holds HTML."""
    return "<" in text and bool(HTML.search(text))


def to_text(text: str) -> str:
    """What a browser would show of a text in HTML: paragraphs, lists and tables by lines, code as
    it is.

    Any other text stays as it is, as does one of which nothing would be seen: a picture alone, say.
    """
    if not is_html(text):
        return text
    reader = _Reader()
    reader.feed(text)
    reader.close()
    lines = "".join(reader.parts).split("\n")
    shown = "\n".join(line.rstrip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", shown).strip("\n") or text


class _Reader(HTMLParser):
    """Collects what is seen; white space counts only inside ``<pre>``."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.code = 0
        self.unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A block begins a line of its own, an item of a list with a dash."""
        if tag in UNSEEN:
            self.unseen += 1
        elif tag == "br":
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append("" if self._at_line_start() else "\t")
        elif tag in BLOCKS:
            self._begin_line(
                blank=tag in ("p", "pre", "ul", "ol", "table", "blockquote", "h1", "h2", "h3", "h4")
            )
            self.parts += ["- "] if tag == "li" else []
        elif tag not in INLINE:
            self.parts.append(
                self.get_starttag_text() or ""
            )  # no tag of HTML: a placeholder, or a type in code
        self.code += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        """The end of a block ends its line."""
        if tag in UNSEEN:
            self.unseen = max(0, self.unseen - 1)
        elif tag in BLOCKS:
            self._begin_line(blank=tag in ("p", "pre", "blockquote"))
        elif tag not in INLINE and tag != "br":
            self.parts.append(f"</{tag}>")
        self.code = max(0, self.code - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        """Text, its white space folded as a browser does."""
        if self.unseen:
            return
        if not self.code:
            data = re.sub(r"\s+", " ", data)
            data = data.lstrip() if self._at_line_start() else data
        self.parts.append(data)

    def _begin_line(self, *, blank: bool) -> None:
        if not self.parts:
            return
        if not self._at_line_start():
            self.parts.append("\n")
        if blank and not "".join(self.parts[-3:]).endswith("\n\n"):
            self.parts.append("\n")

    def _at_line_start(self) -> bool:
        said = next((part for part in reversed(self.parts) if part), "\n")
        return said.endswith("\n")
