"""Training records that look wrong: by how they were learnt, and by whether their words fit their
topic and their question.

Two signs, each higher the more a record looks wrong:

- ``hardness``: its loss in training stays high (dataset cartography, Swayamdipta et al., arXiv
  2009.10795);
- ``doubts``: a classifier that has not seen it gives it another topic (confident learning,
  Northcutt et al., arXiv 1911.00068).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from meetara_build.errors import needs

FOLDS = 5
FEWEST_OF_A_TOPIC = 8
"""Records without which a topic's words cannot be learnt: with three to five, as a domain of 40
records has, doubts are chance."""
HARD = 2.0
"""Spreads above the usual."""
SEED = 0


class Doubt(NamedTuple):
    """Of a record's topic.

    Attributes:
        score: how much question and answer together speak against it, from 0 to 1.
        words_say: the topic that they speak for.
        issue: whether confident learning counts it as mislabelled.
        question_fits: whether the question alone speaks for the record's own topic rather than that
            one.
    """

    score: float
    words_say: str
    issue: bool
    question_fits: bool


class Suspect(NamedTuple):
    """A record that looks wrong: ``other_answer`` if its answer speaks of another topic than its
    question, else its topic."""

    id: str
    score: float
    other_answer: bool
    why: str


def suspects(
    records: Sequence[Mapping[str, Any]], losses: Mapping[str, Sequence[float | None]]
) -> list[Suspect]:
    """The records that look wrong, the worst first. ``losses`` are those of training, an epoch
    each, by record, where known."""
    said = {record["id"]: _read_turns(record) for record in records}
    topics = {record["id"]: record["topic"] for record in records if record.get("topic")}
    hard = hardness({key: several for key, several in losses.items() if key in said})
    found = [
        Suspect(key, doubt.score, doubt.question_fits, _why(topics[key], doubt, hard.get(key)))
        for key, doubt in doubts(said, topics).items()
        if doubt.issue and doubt.words_say != topics[key]
    ]
    return sorted(found, key=lambda one: (-one.score, one.id))


def _read_turns(record: Mapping[str, Any]) -> tuple[str, str]:
    """What is asked and what is answered."""
    by_role = {
        role: [m["content"] for m in record["messages"] if m["role"] == role]
        for role in ("user", "assistant")
    }
    return "\n".join(by_role["user"]), "\n".join(by_role["assistant"])


def _why(topic: str, doubt: Doubt, hard: float | None) -> str:
    where = f"its question says '{topic}', its answer '{doubt.words_say}'"
    if not doubt.question_fits:
        where = f"its topic is '{topic}', its words say '{doubt.words_say}'"
    return f"{where}; hard to learn" if hard is not None and hard > HARD else where


def hardness(losses: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """By record: how far its loss, the mean over epochs, is above what is usual, less how far it
    has fallen more than usual.

    ``losses`` are each record's, one an epoch. Both are in units of their spread over the records
    (median absolute deviation).
    """
    known = {key: [one for one in several if one is not None] for key, several in losses.items()}
    known = {key: several for key, several in known.items() if several}
    means = _standard({key: sum(several) / len(several) for key, several in known.items()})
    falls = _standard(
        {
            key: (several[0] - several[-1]) / several[0] if several[0] else 0.0
            for key, several in known.items()
        }
    )
    return {key: means[key] - falls[key] for key in known}


def doubts(said: Mapping[str, tuple[str, str]], topics: Mapping[str, str]) -> dict[str, Doubt]:
    """Of the records (question and answer) whose topic has enough of them; nothing where fewer than
    two topics do.

    TF-IDF and logistic regression, always predicting records that were not learnt from; cleanlab
    ranks what comes of it.
    """
    import numpy as np

    with needs("agents"):
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores

    keys, names, labels = _classes(topics)
    if len(names) < 2:
        return {}
    whole, question = _chances([said[key] for key in keys], labels)
    quality = get_label_quality_scores(labels, whole, method="self_confidence")
    issues = find_label_issues(labels, whole, n_jobs=1)
    own, other = np.arange(len(keys)), whole.argmax(axis=1)
    fits = question[own, labels] >= question[own, other]
    return {
        key: Doubt(1.0 - float(good), names[int(words)], bool(issue), bool(fit))
        for key, good, words, issue, fit in zip(keys, quality, other, issues, fits, strict=True)
    }


def _chances(said: Sequence[tuple[str, str]], labels: Any) -> tuple[Any, Any]:
    """Of each topic for each record: by its question and answer, and by its question alone."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline

    texts = np.array([f"{asked}\n{answered}" for asked, answered in said], dtype=object)
    questions = np.array([asked for asked, _ in said], dtype=object)
    whole = np.zeros((len(labels), int(labels.max()) + 1))
    alone = np.zeros_like(whole)
    folds = StratifiedKFold(
        min(FOLDS, int(np.bincount(labels).min())), shuffle=True, random_state=SEED
    )
    for learnt, left in folds.split(texts, labels):
        model = make_pipeline(
            TfidfVectorizer(sublinear_tf=True),
            LogisticRegression(C=10.0, max_iter=500, class_weight="balanced"),
        ).fit(texts[learnt], labels[learnt])
        whole[left], alone[left] = (
            model.predict_proba(texts[left]),
            model.predict_proba(questions[left]),
        )
    return whole, alone


def _classes(topics: Mapping[str, str]) -> tuple[list[str], list[str], Any]:
    """The records of topics that have enough, those topics, and each record's place among them."""
    import numpy as np

    counts: dict[str, int] = {}
    for topic in topics.values():
        counts[topic] = counts.get(topic, 0) + 1
    names = sorted(topic for topic, count in counts.items() if count >= FEWEST_OF_A_TOPIC)
    keys = [key for key, topic in topics.items() if topic in names]
    return keys, names, np.array([names.index(topics[key]) for key in keys], dtype=int)


def _standard(values: Mapping[str, float]) -> dict[str, float]:
    from statistics import median

    if not values:
        return {}
    middle = median(values.values())
    spread = 1.4826 * median(abs(value - middle) for value in values.values())
    return {key: (value - middle) / spread if spread else 0.0 for key, value in values.items()}
