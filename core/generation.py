"""How a text goes on from a prompt, as far as it hangs on no framework: the settings, and which words are kept.

A framework's `generate` scores the next words and finds the best candidates, on the model's device. A search decides
here, on NumPy, which of them the texts go on with. A step thus moves a few numbers for each row, and the host waits for
the device once: to know whether all texts have ended, it has to in any case.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..errors import InputError
from .config import PretrainedConfig
from .fields import Rule, flag, integer, number, one_of, optional, positive_number

logger = logging.getLogger("isobert")

# As many words as the Hub's `generate` adds where no length is given.
DEFAULT_NEW_TOKENS = 20

# A cache has room for a multiple of this, so that a step compiled for one length serves those near it.
CACHE_STEP = 64


def _is_ids(value: Any) -> bool:
    ids = value if isinstance(value, list | tuple) else [value]
    return all(integer(0).accepts(item) for item in ids)


RULES: dict[str, Rule] = {
    "max_new_tokens": optional(integer(1)),
    "max_length": optional(integer(1)),
    "min_new_tokens": optional(integer(0)),
    "min_length": optional(integer(0)),
    "do_sample": flag(),
    "temperature": positive_number(),
    "top_k": optional(integer(0)),
    "top_p": Rule(lambda v: positive_number().accepts(v) and v <= 1, "a number above 0 and at most 1"),
    "num_beams": integer(1),
    "length_penalty": number(),
    "early_stopping": Rule(lambda v: flag().accepts(v) or one_of("never").accepts(v), 'True, False or "never"'),
    "num_return_sequences": integer(1),
    "bos_token_id": optional(integer(0)),
    "eos_token_id": optional(Rule(_is_ids, "an integer >= 0, or a list of them")),
    "pad_token_id": optional(integer(0)),
    "seed": optional(integer(0)),
}

# Arguments that change nothing unless sampling, or unless searching beams, with the values that ask for nothing.
OF_SAMPLING = {"temperature": (1.0,), "top_k": (None, 0), "top_p": (1.0,)}
OF_BEAMS = {"length_penalty": (1.0,), "early_stopping": (False,)}


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """What `generate` was asked for, checked, with lengths and ids made definite.

    Attributes:
        prompt_length: positions of the prompts.
        max_length: positions of the longest text, prompt included.
        min_length: how many positions a text has at least.
        cache_length: how many positions a cache is to have room for.
        do_sample, temperature, top_k, top_p: how words are drawn; a `top_k` of 0 and a `top_p` of 1 leave none out.
        num_beams, length_penalty, early_stopping: how beams are searched.
        num_return_sequences: texts for each prompt.
        eos_token_ids: the ids that end a text.
        pad_token_id: what follows the end of a text.
        vocab_size: number of words.
    """

    prompt_length: int
    max_length: int
    min_length: int
    cache_length: int
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    num_beams: int
    length_penalty: float
    early_stopping: bool | str
    num_return_sequences: int
    eos_token_ids: tuple[int, ...]
    pad_token_id: int
    vocab_size: int

    @classmethod
    def of(cls, config: PretrainedConfig, prompt_length: int, **asked: Any) -> Self:
        """Check the arguments of `generate` named in `RULES`, and take from a config what they leave open.

        Raises:
            InputError: an argument is not legal, or contradicts another or the config.
        """
        for name, value in asked.items():
            check_argument(name, value)
        max_length, min_length = _lengths(config, prompt_length, asked)
        eos = token_of(config, "eos_token_id", asked["eos_token_id"])
        eos_ids = () if eos is None else (eos,) if isinstance(eos, int) else tuple(eos)
        pad = token_of(config, "pad_token_id", asked["pad_token_id"])
        beams, texts, do_sample = asked["num_beams"], asked["num_return_sequences"], asked["do_sample"]
        if texts > beams and (beams > 1 or not do_sample):
            raise InputError(
                f"num_return_sequences is {texts} and num_beams {beams}; there are no more texts than beams, unless "
                "words are sampled (do_sample=True) without beams."
            )
        for there, arguments, needed in (
            (do_sample, OF_SAMPLING, "do_sample=True"),
            (beams > 1, OF_BEAMS, "num_beams"),
        ):
            idle = [name for name, nothing in arguments.items() if not there and asked[name] not in nothing]
            if idle:
                logger.warning("generate was given %s; without %s, that changes nothing.", ", ".join(idle), needed)
        return cls(
            prompt_length=prompt_length,
            max_length=max_length,
            min_length=min_length,
            cache_length=min(-(-max_length // CACHE_STEP) * CACHE_STEP, config.max_position_embeddings),
            do_sample=do_sample,
            temperature=asked["temperature"],
            top_k=asked["top_k"] or 0,
            top_p=asked["top_p"],
            num_beams=beams,
            length_penalty=asked["length_penalty"],
            early_stopping=asked["early_stopping"],
            num_return_sequences=texts,
            eos_token_ids=eos_ids,
            # A text that no id ends has no padding after it.
            pad_token_id=pad if pad is not None else eos_ids[0] if eos_ids else 0,
            vocab_size=config.vocab_size,
        )

    @property
    def copies(self) -> int:
        """How many rows of a batch each prompt takes."""
        return max(self.num_beams, self.num_return_sequences)

    @property
    def least_kept(self) -> int:
        """How many of a row's words are candidates at least: with beams, one more than can end a text."""
        return 1 if self.num_beams == 1 else max(2, 1 + len(self.eos_token_ids))

    @property
    def num_candidates(self) -> int:
        """How many candidates a step looks at, so that all beams go on whichever of them end."""
        return self.least_kept * self.num_beams


def check_argument(name: str, value: Any) -> None:
    """Raise `InputError` unless an argument of `generate` keeps its rule."""
    if not RULES[name].accepts(value):
        raise InputError(f"{name} is {value!r}; it must be {RULES[name].words}.")


def token_of(config: PretrainedConfig, name: str, given: Any) -> Any:
    """Return an argument that names an id, or ids; where it is None, what the config has under this name.

    Raises:
        InputError: it is no id of the vocabulary.
    """
    found = getattr(config, name, None) if given is None else given
    for token in found if isinstance(found, list | tuple) else [found]:
        if token is not None and token >= config.vocab_size:
            where = f"{type(config).__name__}." if given is None else ""
            raise InputError(
                f"{where}{name} is {token}; it must be below vocab_size, {config.vocab_size}. Give generate another."
            )
    return found


def _lengths(config: PretrainedConfig, prompt_length: int, asked: dict[str, Any]) -> tuple[int, int]:
    """Return how many positions a text has at most and at least, prompt included."""
    limit = config.max_position_embeddings
    for new, whole in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
        if asked[new] is not None and asked[whole] is not None:
            raise InputError(f"Give {new}, which does not count the prompt, or {whole}, which does; not both.")
    longest, shortest = asked["max_length"], asked["min_length"] or 0
    if asked["max_new_tokens"] is not None:
        longest = prompt_length + asked["max_new_tokens"]
    elif longest is None:
        longest = min(prompt_length + DEFAULT_NEW_TOKENS, limit)
    if asked["min_new_tokens"] is not None:
        shortest = prompt_length + asked["min_new_tokens"]
    if longest > limit:
        raise InputError(
            f"Texts may grow to {longest} positions, prompts of {prompt_length} included; this model has {limit} "
            "(max_position_embeddings). Lower max_new_tokens or max_length, or shorten the prompts."
        )
    if longest <= prompt_length:
        raise InputError(
            f"The prompts have {prompt_length} positions already, and texts may have {longest} (max_length); raise it, "
            f"up to {limit} (max_position_embeddings), or shorten the prompts."
        )
    if shortest > longest:
        raise InputError(f"Texts are to have at least {shortest} positions and at most {longest}, prompts included.")
    return longest, shortest


def prompt_mask(ids: np.ndarray, mask: np.ndarray | None, settings: GenerationSettings) -> np.ndarray:
    """Return which positions of the prompts are no padding, int64 `[batch, length]`.

    Without a mask, that is told by the padding's id, unless it also ends texts.

    Args:
        ids: integers `[batch, length]`.
        mask: `[batch, length]`, 1 for what is to be read; or None.
        settings: what was asked for.

    Raises:
        InputError: the mask's shape is another, or a prompt is padded at its end.
    """
    if mask is None:
        is_known = settings.pad_token_id not in settings.eos_token_ids
        mask = ids != settings.pad_token_id if is_known else np.ones_like(ids)
    if mask.shape != ids.shape:
        raise InputError(f"attention_mask has the shape {list(mask.shape)}; it must be {list(ids.shape)}.")
    wrong = np.flatnonzero(mask[:, -1] == 0)
    if wrong.size:
        raise InputError(
            f"Row {wrong[0]} of the prompts ends with padding, after which no text can go on. Pad on the left: open "
            'the tokenizer with padding_side="left".'
        )
    return mask.astype(np.int64)


class RowSearch:
    """Texts that go on each by itself, with the best word or a word drawn.

    Args:
        prompts: integers `[batch, length]`.
        settings: what was asked for.

    Attributes:
        length: positions that are written.
        sources: None: each row goes on from itself.
        group_scores: None: what came before plays no part in which word is best.
        is_done: whether nothing more is to come.
    """

    sources: np.ndarray | None = None
    group_scores: np.ndarray | None = None

    def __init__(self, prompts: np.ndarray, settings: GenerationSettings) -> None:
        self.settings = settings
        self.length = settings.prompt_length
        self.is_done = False
        self._texts = _blank(prompts, settings)
        self._has_ended = np.zeros(len(self._texts), bool)

    @property
    def words(self) -> np.ndarray:
        """The last word of each row, integers `[rows]`."""
        return self._texts[:, self.length - 1]

    def accept(self, scores: np.ndarray, choices: np.ndarray) -> None:
        """Go on by a word.

        Args:
            scores: of the words; not looked at.
            choices: integers `[rows, 1]`, the words.
        """
        words = np.where(self._has_ended, self.settings.pad_token_id, choices[:, 0])
        self._texts[:, self.length] = words
        self._has_ended |= np.isin(words, self.settings.eos_token_ids)
        self.length += 1
        self.is_done = bool(self._has_ended.all()) or self.length == self.settings.max_length

    def texts(self) -> np.ndarray:
        """Return the texts, `[rows, length of the longest]`."""
        return self._texts[:, : self.length]


class BeamSearch:
    """The most likely texts, as far as following the few best at each step finds them.

    Texts that have ended are compared by `log probability / new words ** length_penalty` (Wu et al. 2016, "Google's
    neural machine translation system", section 7, with the Hub's simpler penalty). When it stops: with `early_stopping`
    once as many texts as beams have ended; else once no beam can become better than the worst of these, supposing that
    it ends at once (False), or with a penalty above 0 at the greatest length ("never").

    Args:
        prompts: integers `[batch, length]`.
        settings: what was asked for.

    Attributes:
        length: positions that are written.
        sources: integers `[batch * beams]`, the row that each row goes on from; None before the first step.
        group_scores: `[batch, beams]`, the beams' log probabilities.
        is_done: whether nothing more is to come.
    """

    def __init__(self, prompts: np.ndarray, settings: GenerationSettings) -> None:
        beams = settings.num_beams
        self.settings = settings
        self.length = settings.prompt_length
        self.sources: np.ndarray | None = None
        self.is_done = False
        self._running = _blank(prompts, settings).reshape(len(prompts), beams, -1)
        self._ended = self._running.copy()
        self._ended_lengths = np.full((len(prompts), beams), self.length)
        self._ended_scores = np.full((len(prompts), beams), -np.inf, np.float32)
        # The beams are all alike before the first step; were there more than one, each word would be found as often.
        self.group_scores = np.full((len(prompts), beams), -np.inf, np.float32)
        self.group_scores[:, 0] = 0
        self._may_improve = np.ones(len(prompts), bool)

    @property
    def words(self) -> np.ndarray:
        """The last word of each beam, integers `[batch * beams]`."""
        return self._running[:, :, self.length - 1].reshape(-1)

    def accept(self, scores: np.ndarray, choices: np.ndarray) -> None:
        """Go on by a word.

        Args:
            scores: `[batch, candidates]`, log probabilities of the candidates, beginning with the best; where words are
                drawn, in the order in which they were.
            choices: integers `[batch, candidates]`, `beam * vocab_size + word`.
        """
        settings, beams = self.settings, self.settings.num_beams
        parents, words = np.divmod(choices, settings.vocab_size)
        texts = np.take_along_axis(self._running, parents[..., None], axis=1)
        texts[:, :, self.length] = words
        self.length += 1
        ends = np.isin(words, settings.eos_token_ids) | (self.length == settings.max_length)
        self._keep_ended(texts, scores, ends)
        best = _best(np.where(ends, -np.inf, scores), beams)
        self._running = np.take_along_axis(texts, best[..., None], axis=1)
        self.group_scores = np.take_along_axis(np.where(ends, -np.inf, scores), best, axis=1)
        first_rows = np.arange(len(texts))[:, None] * beams
        self.sources = (first_rows + np.take_along_axis(parents, best, axis=1)).reshape(-1)
        self._look_ahead()
        are_enough = settings.early_stopping is True and np.isfinite(self._ended_scores).all()
        self.is_done = bool(not self._may_improve.any() or are_enough or ends.all())

    def _keep_ended(self, texts: np.ndarray, scores: np.ndarray, ends: np.ndarray) -> None:
        """Keep the best texts among those that ended before and those of the first candidates that end now."""
        settings, beams = self.settings, self.settings.num_beams
        is_open = self._may_improve
        if settings.early_stopping is True:
            is_open = is_open & ~np.isfinite(self._ended_scores).all(axis=1)
        # Candidates after the first beams are there so that enough go on.
        counted = ends & (np.arange(ends.shape[1]) < beams) & is_open[:, None]
        penalty = (self.length - settings.prompt_length) ** settings.length_penalty
        found = np.concatenate([self._ended_scores, np.where(counted, scores / penalty, -np.inf)], axis=1)
        lengths = np.concatenate([self._ended_lengths, np.full(ends.shape, self.length)], axis=1)
        best = _best(found, beams)
        self._ended_scores = np.take_along_axis(found, best, axis=1)
        self._ended_lengths = np.take_along_axis(lengths, best, axis=1)
        self._ended = np.take_along_axis(np.concatenate([self._ended, texts], axis=1), best[..., None], axis=1)

    def _look_ahead(self) -> None:
        """Find the prompts of which a text that goes on may still become better than the worst that has ended."""
        settings = self.settings
        to_the_end = settings.early_stopping == "never" and settings.length_penalty > 0
        length = settings.max_length if to_the_end else self.length
        possible = self.group_scores[:, 0] / (length - settings.prompt_length) ** settings.length_penalty
        self._may_improve &= possible > self._ended_scores.min(axis=1)

    def texts(self) -> np.ndarray:
        """Return the best texts of each prompt, the best first, `[batch * num_return_sequences, longest's length]`."""
        count = self.settings.num_return_sequences
        longest = self._ended_lengths[:, :count].max()
        return self._ended[:, :count, :longest].reshape(-1, longest)


def new_search(prompts: np.ndarray, settings: GenerationSettings) -> RowSearch | BeamSearch:
    """Return the search that the settings ask for."""
    return RowSearch(prompts, settings) if settings.num_beams == 1 else BeamSearch(prompts, settings)


def _blank(prompts: np.ndarray, settings: GenerationSettings) -> np.ndarray:
    """Return each prompt as often as it is gone on from, with room for the longest text: padding so far."""
    texts = np.full((len(prompts) * settings.copies, settings.max_length), settings.pad_token_id, np.int64)
    texts[:, : settings.prompt_length] = np.repeat(prompts, settings.copies, axis=0)
    return texts


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Return where the highest scores of each row are, the highest first; of equal ones, the first."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]
