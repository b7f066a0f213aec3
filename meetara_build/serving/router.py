"""Which domain a question belongs to, by what the domains were trained on, and how sure that is.

By words and pieces of words (TF-IDF, and complement naive Bayes over it: Rennie et al. 2003), and,
where there is an embedding model, by meaning as well. How sure a guess is, is learnt from the
records themselves, each asked for with itself left out, and from questions that belong to none of
the domains.
"""

from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from meetara_build.stages.dataset.split import place

Floats = npt.NDArray[np.float64]
Encode = Callable[[Sequence[str]], Floats]
"""Unit embeddings of texts, shape (texts, width)."""

BEST = 3
"""Guesses that are told of."""
FOLDS = 4
NONE = -1
STRANGERS = 0.25
"""How many questions of no domain are taken to come for each that belongs to one: an assumption,
on which threshold and confidence rest. It was chosen of five by looking at what the base would get."""
ABOUT = 3.0
"""How many records a domain's description and system prompt weigh: chosen among 1, 2 and 3 by held-out
questions of the shipped domains, so that the figures of these flatter it."""
MEANING = 2.0
"""Weight of a cosine beside a difference of log-likelihoods; chosen in the same way, among six."""


class Lessons(NamedTuple):
    """What a domain was trained on: what it is about, and its questions with their answers."""

    domain: str
    about: str
    prompts: Sequence[str]
    answers: Sequence[str]


class Guess(NamedTuple):
    """A domain that a question may belong to, and how likely it does, from 0 to 1."""

    domain: str
    confidence: float


class Router:
    """Which of some domains a question belongs to.

    Below ``threshold`` a guess is better not followed: from there on, most of the questions that
    were left out come to where they belong.
    """

    def __init__(
        self,
        lessons: Sequence[Lessons],
        strangers: Sequence[str] = (),
        encode: Encode | None = None,
    ) -> None:
        """Read the lessons, which takes seconds for many domains; ``strangers`` are questions that
        belong to none of them."""
        self.domains = [lesson.domain for lesson in lessons]
        encode = None if encode is None else _remember(encode)
        self._scorer = _Scorer(lessons, encode) if lessons else None
        self._sure: Any = None
        self.threshold = 1.0
        if len(lessons) > 1:
            self._learn_how_sure(_leave_out(lessons, strangers, encode))

    def guess(self, question: str) -> list[Guess]:
        """The likeliest domains, the first the likeliest.

        With one domain alone there is nothing to tell its questions from others: its confidence
        is 0.
        """
        if self._scorer is None:
            return []
        if self._sure is None:
            return [Guess(self.domains[0], 0.0)]
        best, features = self._scorer.weigh([question])
        found = [
            Guess(self.domains[domain], round(float(sure), 4))
            for domain, sure in zip(best[0], self._weigh(features)[0], strict=True)
        ]
        return sorted(found, key=lambda guess: -guess.confidence)

    def _learn_how_sure(self, asked: "_Asked") -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if not asked.right.any():
            return  # records that tell nothing: no guess is sure
        count, guesses, width = asked.features.shape
        self._sure = make_pipeline(StandardScaler(), LogisticRegression())
        self._sure.fit(
            asked.features.reshape(-1, width),
            asked.right.ravel(),
            logisticregression__sample_weight=np.repeat(asked.weights, guesses),
        )
        sure, rows = self._weigh(asked.features), np.arange(count)
        first = sure.argmax(axis=1)
        self.threshold = find_threshold(sure[rows, first], asked.right[rows, first], asked.weights)

    def _weigh(self, features: Floats) -> Floats:
        """How likely guesses are right, shape (questions, guesses)."""
        sure = self._sure.predict_proba(features.reshape(-1, features.shape[-1]))[:, 1]
        return np.asarray(sure.reshape(features.shape[:2]))


def find_threshold(sure: Floats, right: npt.NDArray[np.bool_], weights: Floats) -> float:
    """From which confidence on guesses are followed, so that those that are right outweigh those
    that are wrong by the most; beyond all of them where they never do."""
    order = np.argsort(-sure, kind="stable")
    gains = np.cumsum(np.where(right, weights, -weights)[order])
    # Guesses of one confidence are followed together: what counts is the sum after the last.
    last = np.append(np.diff(sure[order]) != 0, True)
    gains = np.where(last, gains, -np.inf)
    best = int(gains.argmax())
    return float(sure[order][best]) if gains[best] > 0 else 1.0


class _Evidence(NamedTuple):
    """Of some questions the best domains' numbers, shape (questions, BEST); and what speaks for
    each: its lead over the middle, its lead over the best other, and how much of the question is
    known, shape (questions, BEST, 3)."""

    best: npt.NDArray[np.int64]
    features: Floats


class _Asked(NamedTuple):
    """Guesses at questions that were left out: their features, shape (questions, guesses, 3), which
    are right, and what each question weighs."""

    features: Floats
    right: npt.NDArray[np.bool_]
    weights: Floats


class _Scorer:
    """What speaks for each of some domains."""

    def __init__(self, lessons: Sequence[Lessons], encode: Encode | None) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.naive_bayes import ComplementNB
        from sklearn.pipeline import FeatureUnion

        texts, labels, weights = list[str](), list[int](), list[float]()
        for number, lesson in enumerate(lessons):
            pairs = zip(lesson.prompts, lesson.answers, strict=True)
            texts += [lesson.about, *(f"{asked} {said}" for asked, said in pairs)]
            labels += [number] * (len(lesson.prompts) + 1)
            weights += [ABOUT, *[1.0] * len(lesson.prompts)]
        self._count = len(lessons)
        words = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+")
        pieces = TfidfVectorizer(
            sublinear_tf=True,
            analyzer="char_wb",
            ngram_range=(4, 4),
            min_df=1 if len(texts) < 100 else 2,
        )
        self._vectors = FeatureUnion([("words", words), ("pieces", pieces)])
        self._words = words
        self._bayes = ComplementNB(alpha=1.0)
        self._bayes.fit(self._vectors.fit_transform(texts), labels, weights)
        self._encode = encode
        if encode is not None:
            middles = [encode([lesson.about, *lesson.prompts]).mean(axis=0) for lesson in lessons]
            self._middles = np.array([one / max(np.linalg.norm(one), 1e-9) for one in middles])

    def weigh(self, questions: Sequence[str]) -> _Evidence:
        """What speaks for the best domains of each question."""
        scores = self._bayes.predict_log_proba(self._vectors.transform(questions))
        scores = scores.reshape(len(questions), -1)[:, : self._count]
        if self._encode is not None:
            scores = scores + MEANING * self._encode(questions) @ self._middles.T
        order = np.argsort(-scores, axis=1, kind="stable")
        best = order[:, :BEST]
        sorted_scores = np.take_along_axis(scores, order, axis=1)
        others = np.repeat(sorted_scores[:, :1], best.shape[1], axis=1)
        others[:, 0] = sorted_scores[:, 1] if self._count > 1 else sorted_scores[:, 0]
        chosen = sorted_scores[:, :BEST]
        known = np.repeat(self._share_known(questions)[:, None], best.shape[1], axis=1)
        middle = chosen - scores.mean(axis=1, keepdims=True)
        return _Evidence(best, np.stack([middle, chosen - others, known], axis=2))

    def _share_known(self, questions: Sequence[str]) -> Floats:
        cut, known = self._words.build_analyzer(), self._words.vocabulary_
        words = [cut(question) for question in questions]
        return np.array([sum(word in known for word in some) / max(len(some), 1) for some in words])


def _leave_out(
    lessons: Sequence[Lessons], strangers: Sequence[str], encode: Encode | None
) -> _Asked:
    """Each question asked with itself, and others, left out; and the strangers, which together weigh
    a share of all of them."""
    features, right, labels = list[Floats](), list[npt.NDArray[np.bool_]](), list[int]()
    for fold in range(FOLDS):
        kept, asked, of = list[Lessons](), list[str](), list[int]()
        for number, lesson in enumerate(lessons):
            out = [int(place(text) * FOLDS) == fold for text in lesson.prompts]
            kept.append(_keep(lesson, [not left for left in out]))
            asked += [text for text, left in zip(lesson.prompts, out, strict=True) if left]
            of += [number] * sum(out)
        asked += strangers
        of += [NONE] * len(strangers)
        if asked:
            evidence = _Scorer(kept, encode).weigh(asked)
            features.append(evidence.features)
            right.append(evidence.best == np.array(of)[:, None])
            labels += of
    strange = np.array(labels) == NONE
    weights = np.ones(len(strange))
    if strange.any() and not strange.all():
        weights[strange] = STRANGERS * (~strange).sum() / strange.sum()
    return _Asked(np.concatenate(features), np.concatenate(right), weights)


def _keep(lesson: Lessons, kept: Sequence[bool]) -> Lessons:
    return lesson._replace(
        prompts=list(compress(lesson.prompts, kept)), answers=list(compress(lesson.answers, kept))
    )


def _remember(encode: Encode) -> Encode:
    """An encoder that takes each text once."""
    known: dict[str, Floats] = {}

    def encode_new(texts: Sequence[str]) -> Floats:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, encode(new), strict=True))
        return np.array([known[text] for text in texts])

    return encode_new
