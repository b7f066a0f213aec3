"""Texts on which tokenizers tend to differ: what both sides have to cut into the same tokens."""

from collections.abc import Sequence
from itertools import product

from meetara_build.training.turns import Message

_SCRIPTS = (
    "Hello, world! How are you today?",
    "El niño comió piñas y pingüinos en la montaña.",
    "Ça va très bien, merci à vous. Où êtes-vous ?",
    "Die Straßenbahn fährt über die Brücke; größer als früher.",
    "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "Zażółć gęślą jaźń — „cytat”",
    "İstanbul'da ığdır ve şehir",
    "Tiếng Việt có nhiều dấu: được, nhưng, ước",
    "Съешь же ещё этих мягких французских булок",
    "Η γρήγορη καφέ αλεπού πηδά πάνω από τον σκύλο",
    "שלום עולם, מה שלומך?",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣٤",
    "نیم‌فاصله فارسی و می‌خواهم",
    "नमस्ते दुनिया, आप कैसे हैं? १२३४",
    "স্বাস্থ্যকর খাবার খান",
    "வணக்கம் உலகம்",
    "తెలుగు భాష చాలా అందమైనది",
    "สวัสดีชาวโลก วันนี้อากาศดี",
    "你好，世界！今天天气怎么样？",
    "繁體中文測試：醫療與健康",
    "こんにちは世界。カタカナとひらがな、漢字。",
    "안녕하세요 세계, 오늘 날씨가 어때요?",
    "გამარჯობა მსოფლიო",
    "Բարեւ աշխարհ",
    "ሰላም ልዑል",
    "ᓄᓇᕗᑦ ᏣᎳᎩ",
)
_EMOJI = (
    "🙂",
    "🚀 launch 🚀🚀",
    "👨‍👩‍👧‍👦 family",
    "👩🏽‍⚕️ doctor",
    "🏳️‍🌈 🇪🇸🇮🇳",
    "❤️‍🔥 ok ❤",
    "1️⃣2️⃣",
    "😶‍🌫️ (multiple emojis)",
    "text🙂text",
)
_SPACE = (
    *(
        " ",
        "  ",
        "   ",
        "\t",
        "\n",
        "\n\n",
        "\n\n\n",
        "\r\n",
        "\r\n\r\n",
        " \n",
        "\n ",
        "\t\t",
        " \t ",
        "\u00a0",
        "\u3000",
        "\u2009",
    ),
    "a b",
    "a  b",
    "a   b",
    "a\tb",
    "a\n\nb",
    "a \n b",
    "  leading",
    "trailing  ",
    "    four = 4",
    "x\u00a0y",
    "x\u3000y",
    "zero\u200bwidth",
    "soft\u00adhyphen",
    "line\u2028separator",
    "word\n\n\nword",
    "ends with newline\n",
    "\nstarts with newline",
    "tab\there\t\tthere",
    "   \n   \n",
    "a\r\nb\rc",
)
_NUMBERS = (
    *(
        "0",
        "7",
        "42",
        "123",
        "1234",
        "12345",
        "123456",
        "1234567",
        "1,234,567.89",
        "3.14159",
        "-273.15",
        "1e-9",
        "0x1F",
    ),
    "2024-02-29T12:34:56Z",
    "+44 20 7946 0958",
    "10:30",
    "50%",
    "$1,299.00",
    "½ ¾ ² ³ ₂",
    "Ⅷ XIV",
    "v1.2.3-rc4",
    "120/80 mmHg",
    "5mg 10 ml 37.5°C",
    "abc123def456",
)
_WORDS = (
    *(
        "I'm",
        "you're",
        "he's",
        "we've",
        "I'd",
        "they'll",
        "don't",
        "I'M",
        "DON'T",
        "YOU'RE",
        "it’s",
        "O'Neill",
        "'tis",
        "rock'n'roll",
    ),
    *(
        "camelCase",
        "PascalCase",
        "snake_case",
        "kebab-case",
        "SCREAMING_CASE",
        "iPhone",
        "HTTPServer",
        "x",
        "X",
    ),
    *(
        "well-being",
        "e.g.",
        "U.S.A.",
        "Dr.",
        "...",
        "…",
        "—",
        "–",
        "«»",
        "“quoted”",
        "'single'",
        "(paren)",
        "[brackets]",
        "{braces}",
    ),
    *(
        "!?",
        "?!?!",
        "***",
        "###",
        "---",
        "===",
        "~~",
        "`code`",
        "a/b",
        "a\\b",
        "<tag>",
        "&amp;",
        "@user",
        "#topic",
        "100€",
        "£5",
        "₹100",
        "™®©",
    ),
    "Hello!!!\n\nNext",
    "end.\n",
    "end.\n\n",
    "1. one\n2. two\n   - three",
    "naïve façade résumé",
    "ﬁ ﬂ ligatures",
    "𝐛𝐨𝐥𝐝 𝑖𝑡𝑎𝑙𝑖𝑐",
    "H₂O CO₂ x²",
    "α + β = γ",
    "∑ ∫ ∞ ≠ ≤",
    "→ ⇒ ✓ ✗ ★",
    "█ ▓ ░ ─ │",
)
_CODE = (
    "def f(x):\n    return x + 1\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    "if __name__ == '__main__':\n\tmain()",
    '{"key": [1, 2.5, null, true], "a": {"b": "c\\n"}}',
    "SELECT * FROM t WHERE a >= 10 AND b != 'x';",
    '<div class="a">text</div>',
    "https://example.org/path?q=1&r=2#frag",
    "user.name+tag@example.co.uk",
    "C:\\Users\\me\\file.txt",
    "$ git commit -m 'fix: bug' && ls -la | grep py",
    "x = y ** 2 // 3 % 4 << 1",
    "# Heading\n\n- item\n- item\n\n```python\nprint('hi')\n```\n",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "\\frac{a}{b} + \\sqrt{x^2}",
)


def texts() -> list[str]:
    """A few hundred short texts: scripts, emoji, odd spaces, numbers, words, code and their
    neighbours."""
    plain = [*_SCRIPTS, *_EMOJI, *_SPACE, *_NUMBERS, *_WORDS, *_CODE]
    joined = [
        left + gap + right
        for left, gap, right in product(("a", "1", "."), (" ", "\n", "  "), ("B", "2", "é", "!"))
    ]
    spaced = [" " + text for text in (*_SCRIPTS, *_EMOJI)]
    return [*plain, *joined, *spaced]


def with_token(token: str) -> list[str]:
    """One special token in the surroundings where it tends to be missed or to swallow its
    neighbours."""
    return [
        token,
        f"a{token}b",
        f"a {token} b",
        f"{token}\ntext",
        f"text\n{token}",
        f"{token}{token}",
    ]


def conversations(system: str | None) -> Sequence[list[Message]]:
    """Conversations as people have them: one turn and several, with and without a system prompt."""
    ask: Message = {"role": "user", "content": "¿Qué desayuno? 🍎\n\n- oats\n- eggs"}
    answer: Message = {"role": "assistant", "content": "Oats, e.g. 40 g with milk.\n"}
    more: Message = {"role": "user", "content": '  And with "diabetes"? नमस्ते'}
    prompt: Message = {"role": "system", "content": system or "You are a careful guide."}
    plain = [[ask], [ask, answer], [ask, answer, more], [ask, answer, more, answer]]
    return [*plain, *([prompt, *turns] for turns in plain)]
