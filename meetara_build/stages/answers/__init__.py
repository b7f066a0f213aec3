"""Answers of models to held-out prompts, judged by checks that a person can read.

Pure functions: no model is run here. ``gather_knowledge`` takes what a domain's answers may say,
once a domain; a ``Case`` is a held-out prompt with its reference; ``judge_answer`` says what is
wrong with an ``Answer``. Each row of ``CHECKS`` is measured by ``python -m bench.answer_checks``.
"""

from meetara_build.stages.answers.checks import CHECKS, Check, judge_answer, list_applied
from meetara_build.stages.answers.knowledge import Knowledge, Said, gather_knowledge
from meetara_build.stages.answers.topic import measure_closeness
from meetara_build.stages.answers.types import Answer, Case, Finding

__all__ = [
    "CHECKS",
    "Answer",
    "Case",
    "Check",
    "Finding",
    "Knowledge",
    "Said",
    "gather_knowledge",
    "judge_answer",
    "list_applied",
    "measure_closeness",
]
