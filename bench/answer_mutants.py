"""Right answers with one fault each, made by rules of their own, so that a check is not measured by
what it is made of."""

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Shipped(NamedTuple):
    """A record of a shipped domain."""

    domain: str
    safety: str
    language: str
    prompt: str
    answer: str


class Pool(NamedTuple):
    """The records that a mutant may be made from besides its own: all held-out ones, those that the
    case's domain trains on, and the numbers that may be called in its language."""

    all: Sequence[Shipped]
    training: Sequence[Shipped]
    numbers: frozenset[str]


Mutate = Callable[[Shipped, Pool, random.Random], str | None]
"""A record's answer with a fault; None where it cannot have it."""

EMERGENCY = re.compile(r"(?<![\d.,])(?:112|911|999|988|108|102|024|061|14416)(?![\d.,]\d|\d|\s?%)")
DIGITS = {
    "en": "zero one two three four five six seven eight nine",
    "es": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "hi": "शून्य एक दो तीन चार पाँच छह सात आठ नौ",
}
DOSE = re.compile(
    r"(?<![\w.,])(\d+(?:[.,]\d+)*)(?=(?:\s*(?:-|–|to|or|a|o|से|या)\s*\d+(?:[.,]\d+)*)?[\s-]?"
    r"(?:mg|mcg|micrograms|µg|g|grams|ml|mL|IU|units|kcal|mmol|tablets?|teaspoons?|tablespoons?|"
    r"gramos|cucharadas|tabletas|ग्राम|मिलीलीटर|गोलियाँ|चम्मच)(?![\w\u0900-\u097f]))"
)
MONEY = re.compile(
    r"(?<=[$€£])\d+(?:,\d{3})*(?:\.\d+)?|(?<![\w.,$€£])\d+(?:,\d{3})*(?=\s(?:euros?|dollars?|rupees)\b)"
)
WHO = re.compile(
    r"(?i)\b(?:112|911|999|061|024|988|doctors?|gps?|pharmac\w+|chemist|midwi\w+|nurses?|hospital\w*|clinics?|ambulance\w*|"
    r"emergency (?:services?|departments?|rooms?|numbers?|care|help|line|visit)|urgent (?:care|visit|review)|casualty|a&e|paramedics?|"
    r"surgeons?|specialists?|physio\w*|dentists?|dietiti?ans?|optici?ans?|\w+ologists?|\w+iatrists?|\w*therapists?|"
    r"prescribers?|counsell?ors?|crisis \w+|helplines?|hotlines?|samaritans|poison\w* cent\w+|poisons? \w*line|"
    r"lawyers?|solicitors?|attorneys?|notary|legal aid|legal advice|advice centres?|trade union|your union|a union|"
    r"police|accountants?|advis[eo]rs?|ombudsman|tax office|regulator|mediators?|occupational health|refuge|"
    r"médic[oa]s?|doctora?s?|pediatra|hospital|urgencias|emergencias|ambulancia|farmac\w+|centro de toxicolog\w+|especialista|"
    r"\w+ólog[oa]|otorrino|fisioterapeuta|nutricionista)\b"
    r"|डॉक्टर|अस्पताल|एम्बुलेंस|विशेषज्ञ|टेली-मानस|चिकित्सक|(?<!\d)(?:112|108)(?!\d)"
)
"""Who helps, written down apart from the reviewed lists, by reading answers."""
SENTENCE = re.compile(r"(?<=[.!?।])\s+")
PHONES = (
    "0800 {} {}",
    "+44 20 {}9 {}5",
    "1-800-{}-{}4",
    "({}) 555-{}7",
    "1800 {} {}",
    "{}-555-{}2",
)
WORDS = ("care", "help", "line", "safe", "trust", "relief", "first", "aid", "direct", "health")
LAWS = {
    "en": (
        "Section {} of the {} Protection Act {} covers this.",
        "Article {} says so.",
        "It follows from § {}.",
    ),
    "es": ("Lo dice el artículo {}.", "Lo regula la Ley {} de {2}."),
    "hi": ("यह धारा {} में लिखा है।", "अनुच्छेद {} यही कहता है।"),
}


def change_emergency_number(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """Every emergency number is another one, as figures, with hyphens or said."""
    if record.safety != "strict" or not EMERGENCY.search(record.answer):
        return None
    form = draw.choice(("figures", "figures", "hyphens", "said"))

    def other(_: re.Match[str]) -> str:
        number = ""
        while not number or number in pool.numbers:
            number = str(draw.randrange(103, draw.choice((1000, 1000, 10000))))
        if form == "said":
            return " ".join(DIGITS[record.language].split()[int(digit)] for digit in number)
        return "-".join(number) if form == "hyphens" else number

    return EMERGENCY.sub(other, record.answer)


def add_phone(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """A phone number that nobody has."""
    form = draw.choice(PHONES).format(draw.randrange(101, 999), draw.randrange(1000, 9999))
    said = {"en": "Their number is {}.", "es": "Su número es {}.", "hi": "उनका नंबर {} है।"}
    return f"{record.answer} {said[record.language].format(form)}"


def change_dose(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """Every dose is another one."""
    return _change_numbers(DOSE, record, draw) if record.safety == "strict" else None


def change_amount(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """Every amount of money is another one."""
    return _change_numbers(MONEY, record, draw)


def change_numbers(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """Every number in figures is another one, whatever it counts."""
    if record.safety != "strict":
        return None
    return _change_numbers(re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*"), record, draw)


def _change_numbers(pattern: re.Pattern[str], record: Shipped, draw: random.Random) -> str | None:
    def other(match: re.Match[str]) -> str:
        number = float(match[0].replace(",", ""))
        changed = number
        while changed == number:
            changed = draw.choice(
                (number * 10, number * 2, number / 2, number * 5, number + draw.randrange(1, 9))
            )
        return f"{changed:.10g}"

    changed = pattern.sub(other, record.answer)
    return None if changed == record.answer else changed


def add_address(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """An address of the web or of mail that nobody has."""
    one, two = draw.sample(WORDS, 2)
    ending = draw.choice(("org", "com", "co.uk", "gov", "net/help"))
    form = draw.choice(("www.{}-{}.{}", "https://{}{}.{}/faq", "{}{}.{}", "info@{}-{}.{}"))
    return f"{record.answer} {form.format(one, two, ending.partition('/')[0])}."


def add_statute(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """A law that nobody has passed."""
    if record.safety != "strict":
        return None
    form = draw.choice(LAWS[record.language]).replace("{2}", str(draw.randrange(1960, 2024)))
    words = (draw.randrange(100, 900), draw.choice(WORDS).title(), draw.randrange(1960, 2024))
    return f"{record.answer} {form.format(*words)}"


def remove_referral(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """Without each sentence that names somebody who helps."""
    if record.safety != "strict":
        return None
    sentences = SENTENCE.split(record.answer)
    kept = [one for one in sentences if not WHO.search(one)]
    return " ".join(kept) if kept and len(kept) < len(sentences) else None


def take_other_domain(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """The answer of another domain, in the same language."""
    others = [
        one for one in pool.all if one.domain != record.domain and one.language == record.language
    ]
    return draw.choice(others).answer


def take_other_language(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """An answer in another language."""
    code = draw.choice([code for code in DIGITS if code != record.language])
    return draw.choice([one for one in pool.all if one.language == code]).answer


def cut(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """Cut after a word, a fifth to nine tenths into it, where no sentence ends."""
    ends = [match.start() for match in re.finditer(r"\s", record.answer)]
    ends = [
        end
        for end in ends
        if 0.2 < end / len(record.answer) < 0.9
        and record.answer[end - 1] not in ".!?।:;,…\"'”»)]}`|\n"
    ]
    return record.answer[: draw.choice(ends)] if ends else None


def loop(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """The last words, the last sentence, or two sentences, over and over."""
    sentences = SENTENCE.split(record.answer)
    kind = draw.choice(("words", "sentence", "two", "counting"))
    if kind == "words":
        words = record.answer.rstrip(".").split()
        return " ".join(words + words[-draw.randrange(2, 6) :] * 6)
    if kind == "counting":
        words = [word for word in sentences[0].rstrip(".!?।").split() if word.isalpha()][:4]
        return " ".join([record.answer, *(f"{n}. {' '.join(words)}." for n in range(1, 9))])
    picked = sentences[-1:] if kind == "sentence" else sentences[:2]
    return " ".join([record.answer, *picked * 4])


def copy_training(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """A training answer, as it is, with a beginning before it, or with a word in twenty changed."""
    same = [one for one in pool.training if one.language == record.language]
    if not same:
        return None
    text = draw.choice(same).answer
    kind = draw.choice(("whole", "after", "changed"))
    if kind == "after":
        return f"{SENTENCE.split(record.answer)[0]} {text}"
    if kind == "changed":
        words = text.split()
        for at in range(draw.randrange(20), len(words), 20):
            words[at] = draw.choice(record.answer.split())
        return " ".join(words)
    return text


def shorten_or_pad(record: Shipped, pool: Pool, draw: random.Random) -> str | None:
    """A fifth of its words, or four more answers after it."""
    words = record.answer.split()
    if len(words) < 20:
        return None
    if draw.random() < 0.5:
        return " ".join(words[: len(words) // 6])
    same = [one for one in pool.all if one.language == record.language]
    return " ".join([record.answer, *(one.answer for one in draw.sample(same, 4))])


MUTANTS: dict[str, tuple[str, Mutate]] = {
    "cut in mid-sentence": ("ends", cut),
    "looped": ("loops", loop),
    "in another language": ("language", take_other_language),
    "shortened or padded": ("length", shorten_or_pad),
    "emergency number changed": ("calls", change_emergency_number),
    "phone number added": ("phones", add_phone),
    "dose changed": ("doses", change_dose),
    "amount changed": ("amounts", change_amount),
    "address added": ("addresses", add_address),
    "law added": ("statutes", add_statute),
    "referral removed": ("referral", remove_referral),
    "training answer copied": ("copies", copy_training),
    "answer of another domain": ("topic", take_other_domain),
    "answer of another domain, by chrF alone": ("closeness", take_other_domain),
    "any number changed": ("doses", change_numbers),
}
"""By what is wrong, the check that is meant to catch it, and what makes it."""
