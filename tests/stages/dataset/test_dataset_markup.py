"""HTML as plain text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meetara_build.stages.dataset.markup import is_html, to_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Take <b>two</b> eggs &amp; milk.</p>\n<p>Stir.</p>", "Take two eggs & milk.\n\nStir."),
        ("<ul>\n<li>one</li>\n<li>two</li>\n</ul>", "- one\n- two"),
        (
            "Then:<pre><code>def f():\n    return 1\n</code></pre>Done",
            "Then:\n\ndef f():\n    return 1\n\nDone",
        ),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>", "a\tb\nc\td"),
        ("one<br>two<br/>three", "one\ntwo\nthree"),
        ('<P CLASS="x">first\n   second', "first second"),
        ("<script>alert(1)</script><div>seen</div>", "seen"),
        ("<div>Write &lt;b&gt; for <name></div>", "Write <b> for <name>"),
    ],
)
def test_html_becomes_what_a_browser_shows(html, text):
    assert to_text(html) == text


@pytest.mark.parametrize(
    "text",
    ["a < b and b > c", "List<String> names", "  indented\n", "<name> goes here", "x &amp; y"],
)
def test_other_text_stays_as_it_is(text):
    assert not is_html(text)
    assert to_text(text) == text


def test_a_text_of_which_nothing_would_be_seen_stays():
    assert to_text('<p><img src="x.png"></p>') == '<p><img src="x.png"></p>'


@given(st.text(alphabet="<>/pbliul !-&;=\"'\n"))
def test_no_text_breaks_the_reader_or_is_lost(text):
    assert to_text(text) or not text
