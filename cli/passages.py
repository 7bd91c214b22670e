"""Labelled passages of real prose for the demo: the user's text files, or the language reference in every Python."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

WORDS_PER_PASSAGE = 32
FEWEST_PASSAGES = 10  # of a topic: fewer could not be split into a training and a held-out part that mean something


@dataclass(frozen=True)
class Passages:
    """Passages and their topics.

    Attributes:
        topics: names of the classes.
        train, held_out: pairs of a passage and its topic's index, shuffled; no paragraph is in both.
    """

    topics: list[str]
    train: list[tuple[str, int]]
    held_out: list[tuple[str, int]]

    def majority_share(self) -> float:
        """Return the share of the held-out passages that the most frequent training topic gets right."""
        counts = [0] * len(self.topics)
        for _, topic in self.train:
            counts[topic] += 1
        favourite = counts.index(max(counts))
        return sum(topic == favourite for _, topic in self.held_out) / len(self.held_out)


def read_language_reference() -> dict[str, str]:
    """Return the topics of Python's own help, as it ships with this interpreter: name to text."""
    from pydoc_data.topics import topics

    return dict(topics)


def read_text_files(paths: Sequence[Path]) -> dict[str, str]:
    """Return each file's text under the file's stem: every file is one topic.

    Raises:
        InputError: fewer than two files, two of one stem, or a file that is missing or not UTF-8 text.
    """
    if len(paths) < 2:
        raise InputError(f"Telling topics apart needs two text files or more, one a topic; got {len(paths)}.")
    texts: dict[str, str] = {}
    for path in paths:
        if path.stem in texts:
            raise InputError(f"Two text files are called {path.stem!r}; a file's name is its topic's, so rename one.")
        try:
            texts[path.stem] = path.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"The text file {path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise InputError(f"The text file {path} is not UTF-8 text (byte {error.start}).") from error
    return texts


def split_into_passages(texts: Mapping[str, str], *, most_topics: int, seed: int) -> Passages:
    """Cut texts into passages of 32 words, hold out every fifth stretch of each topic, and shuffle.

    A paragraph that several topics share is given to the longest of them alone, so that no held-out passage was seen
    in training. The `most_topics` longest topics are kept.

    Raises:
        InputError: fewer than two topics have text enough.
    """
    by_length = sorted(texts, key=lambda name: (-len(texts[name]), name))
    taken: set[str] = set()
    train_of: dict[str, list[str]] = {}
    held_out_of: dict[str, list[str]] = {}
    for name in by_length:
        passages = _cut(texts[name], taken)
        if len(passages) >= FEWEST_PASSAGES:
            held_out_of[name] = passages[::5]
            train_of[name] = [passage for index, passage in enumerate(passages) if index % 5]
    topics = sorted(train_of, key=lambda name: (-len(train_of[name]), name))[:most_topics]
    if len(topics) < 2:
        raise InputError(
            f"Only {len(topics)} of {len(texts)} texts have {FEWEST_PASSAGES * WORDS_PER_PASSAGE} words of their own; "
            "telling topics apart needs two. Give more or longer texts."
        )
    shuffler = random.Random(seed)
    train = [(passage, index) for index, name in enumerate(topics) for passage in train_of[name]]
    held_out = [(passage, index) for index, name in enumerate(topics) for passage in held_out_of[name]]
    shuffler.shuffle(train)
    shuffler.shuffle(held_out)
    return Passages(topics, train, held_out)


def _cut(text: str, taken: set[str]) -> list[str]:
    """Join the text's paragraphs that are not `taken` yet into passages; note them as taken."""
    words: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        tidy = " ".join(paragraph.split())
        if tidy and tidy not in taken:
            taken.add(tidy)
            words.extend(tidy.split())
    passages = [words[start : start + WORDS_PER_PASSAGE] for start in range(0, len(words), WORDS_PER_PASSAGE)]
    return [" ".join(passage) for passage in passages if len(passage) == WORDS_PER_PASSAGE]
