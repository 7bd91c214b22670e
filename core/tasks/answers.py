"""How near an answer is to the expected ones: SQuAD's measures (Rajpurkar et al. 2016, section 6.1; 2018).

Two answers are compared in a normal form: small letters, without punctuation, articles and superfluous blanks.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from .labels import mean, precision_recall_f1

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normal_form(answer: str) -> str:
    """Return what of an answer counts.

    Example:
        >>> normal_form("The  Broncos' (defense).")
        'broncos defense'
    """
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, expected: Sequence[str]) -> float:
    """Return 1 if an answer is one of the expected ones, else 0; where none is expected, the right answer is empty."""
    return float(normal_form(answer) in map(normal_form, expected or [""]))


def word_f1(answer: str, expected: Sequence[str]) -> float:
    """Return the F1 of an answer's words, that of the expected answer which it is nearest to."""
    return max(_f1(normal_form(answer).split(), normal_form(text).split()) for text in expected or [""])


def _f1(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        # No answer is right where none is expected, and wrong elsewhere.
        return float(found == wanted)
    return precision_recall_f1((Counter(found) & Counter(wanted)).total(), len(found), len(wanted))[2]


def best_threshold(
    null_scores: Sequence[float], with_answer: Sequence[float], without: Sequence[float]
) -> tuple[float, float]:
    """Return from which null score on it is best to answer nothing, and the mean score that this gives.

    Args:
        null_scores: by how much nothing scores higher than the answer, for each question.
        with_answer: what answering each question is worth.
        without: what answering nothing is worth.
    """
    order = np.argsort(null_scores, kind="stable")
    # gains[k] is the sum when the k questions of the lowest null scores are answered, and the others are not.
    differences = (np.asarray(with_answer, float) - np.asarray(without, float))[order]
    gains = np.concatenate([[0.0], np.cumsum(differences)])
    scores = np.asarray(null_scores, float)[order]
    # Equal null scores are answered together: a threshold cannot part them.
    possible = [k for k in range(len(gains)) if k in (0, len(scores)) or scores[k - 1] < scores[k]]
    best = max(possible, key=lambda k: gains[k])
    threshold = float(np.nextafter(scores[0], -np.inf) if best == 0 else scores[best - 1])
    return threshold, float((sum(without) + gains[best]) / len(scores))


def answer_metrics(
    answers: Sequence[str], null_scores: Sequence[float], expected: Sequence[Sequence[str]], threshold: float
) -> dict[str, float]:
    """Return SQuAD's metrics, from 0 to 1.

    `exact_match` and `f1`; where some questions have no answer, also both for the questions with an answer and without
    (`has_answer_f1`, `no_answer_f1`), and the best that a threshold for answering nothing could reach (`best_f1`), with
    that threshold (`best_f1_threshold`).

    Args:
        answers: the best answer to each question, not nothing.
        null_scores: by how much nothing scores higher.
        expected: the right answers; none where there is no answer.
        threshold: above which null score nothing is answered; it only counts where some question has no answer.
    """
    exact = [exact_match(answer, right) for answer, right in zip(answers, expected, strict=True)]
    near = [word_f1(answer, right) for answer, right in zip(answers, expected, strict=True)]
    if all(expected):
        return {"exact_match": mean(exact), "f1": mean(near)}
    none = [float(not right) for right in expected]
    metrics: dict[str, float] = {}
    for name, scores in (("exact_match", exact), ("f1", near)):
        given = [n if null > threshold else s for s, n, null in zip(scores, none, null_scores, strict=True)]
        metrics[name] = mean(given)
        metrics[f"has_answer_{name}"] = mean([s for s, right in zip(given, expected, strict=True) if right])
        metrics[f"no_answer_{name}"] = mean([s for s, right in zip(given, expected, strict=True) if not right])
        metrics[f"best_{name}_threshold"], metrics[f"best_{name}"] = best_threshold(null_scores, scores, none)
    return metrics
