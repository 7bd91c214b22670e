"""Text from a decoder, word by word: the best word or one drawn (Holtzman et al. 2019, section 3), or beam search.

The prompts are read in one call. Then each step runs the model on one word a row, with a cache of a size that stays, so
that a compiled model compiles a step once. The words that a step finds go to the host, which decides what the texts go
on with (`core.generation`) and sends that back; nothing else makes the host wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.generation import GenerationSettings, check_argument, new_search, prompt_mask, token_of
from ..errors import InputError
from .attention import positions_of
from .cache import KeyValueCache
from .inputs import check_ids, check_tensors
from .modeling import PreTrainedModel, evaluation


class GenerationMixin(PreTrainedModel):
    """What makes a model that scores next words write texts."""

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        min_new_tokens: int | None = None,
        min_length: int | None = None,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        early_stopping: bool | str = False,
        num_return_sequences: int = 1,
        bos_token_id: int | None = None,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        seed: int | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Go on from prompts until each text has ended. Dropout is off, and no gradient is kept.

        Args:
            input_ids: the prompts, integers `[batch, length]`, shorter ones padded on the left. None begins with
                `bos_token_id`, one text for each row of `encoder_hidden_states`, or one.
            attention_mask: `[batch, length]`; 1 keeps, 0 masks. None masks what has the padding's id, unless that id
                also ends texts.
            token_type_ids: integers `[batch, length]`; new words have their row's last. None is all 0.
            max_new_tokens: how many words may be added; None leaves it to `max_length`.
            max_length: how long a text may become, prompt included; with neither, 20 words are added, or as many as
                the model has positions for.
            min_new_tokens: how many words are added before a text may end.
            min_length: how long a text is before it may end, prompt included.
            do_sample: whether words are drawn by their probability; else the likeliest is taken.
            temperature: what scores are divided by before a word is drawn; below 1 the likely become likelier.
            top_k: draw from this many of the likeliest words; None or 0 is all.
            top_p: draw from the likeliest words that have this much probability together; 1 is all.
            num_beams: how many texts of a prompt are followed at once; the likeliest that ended is returned.
            length_penalty: the power of a text's number of new words by which its log probability is divided, when
                texts of beams are compared; above 0 it favours long ones.
            early_stopping: when beam search stops: once `num_beams` texts have ended (True), once no other looks
                better (False), or once none can become better ("never").
            num_return_sequences: texts for each prompt, at most `num_beams` unless `do_sample`.
            bos_token_id: what an empty prompt begins with; None is the config's.
            eos_token_id: the id, or several, that end a text; None is the config's, an empty list none at all.
            pad_token_id: what follows the end of a text; None is the config's, or if it has none the first that ends.
            seed: of the words drawn; the same seed draws the same. None takes PyTorch's own random state, which a seed
                leaves alone.
            encoder_hidden_states: what the texts are about, `[batch, encoder's length, hidden_size]`, for a decoder
                with cross-attention.
            encoder_attention_mask: `[batch, encoder's length]`; None keeps all.

        Returns:
            The prompts with what follows, integers `[batch * num_return_sequences, length of the longest]`; the texts
            of one prompt follow each other, of beams the best first.

        Raises:
            InputError: the model is no decoder, an argument is not legal, prompts end with padding, or texts would
                become longer than the model has positions for.
        """
        check_tensors(input_ids=input_ids, attention_mask=attention_mask, encoder_hidden_states=encoder_hidden_states)
        check_argument("seed", seed)
        check_argument("bos_token_id", bos_token_id)
        if not self.config.is_decoder:
            raise InputError("Texts are written by a decoder: this model's config has is_decoder=False.")
        if input_ids is None:
            bos = token_of(self.config, "bos_token_id", bos_token_id)
            if bos is None:
                raise InputError("There is nothing to begin with: give input_ids or bos_token_id.")
            rows = 1 if encoder_hidden_states is None else len(encoder_hidden_states)
            input_ids = torch.full((rows, 1), bos, device=self.device)
        if input_ids.dim() != 2 or not input_ids.numel():
            raise InputError(
                f"input_ids has the shape {list(input_ids.shape)}; it must be [batch, length], neither of them 0. "
                "Leave it out to begin with bos_token_id."
            )
        check_ids("input_ids", input_ids, self.config.vocab_size, "vocab_size")
        settings = GenerationSettings.of(
            self.config,
            input_ids.shape[1],
            max_new_tokens=max_new_tokens,
            max_length=max_length,
            min_new_tokens=min_new_tokens,
            min_length=min_length,
            do_sample=do_sample,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            num_return_sequences=num_return_sequences,
            eos_token_id=eos_token_id,
            pad_token_id=pad_token_id,
        )
        with evaluation(self):
            return self._write(
                input_ids, attention_mask, token_type_ids, encoder_hidden_states, encoder_attention_mask, settings, seed
            )

    def _write(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        encoder_hidden_states: Tensor | None,
        encoder_attention_mask: Tensor | None,
        settings: GenerationSettings,
        seed: int | None,
    ) -> Tensor:
        """Read the prompts, and go on from them step by step."""
        prompts = input_ids.cpu().numpy()
        mask = prompt_mask(prompts, None if attention_mask is None else attention_mask.cpu().numpy(), settings)
        keep = torch.tensor(mask, device=input_ids.device)
        search = new_search(prompts, settings)
        generator = None if seed is None else torch.Generator(self.device).manual_seed(seed)

        positions = positions_of(keep)
        read = self.base_model(
            input_ids,
            keep,
            token_type_ids,
            positions,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=self.base_model.new_cache(len(input_ids), settings.cache_length),  # type: ignore[operator]
        )
        # Of a prompt, the last position's scores alone are wanted. What is the same for all its texts is read once.
        logits = self.get_lm_head()(read.last_hidden_state[:, -1:])[:, 0].repeat_interleave(settings.copies, 0)
        cache = repeated(read.past_key_values, settings.copies)
        positions = positions[:, -1:].repeat_interleave(settings.copies, 0)
        types = None if token_type_ids is None else token_type_ids[:, -1:].repeat_interleave(settings.copies, 0)
        while True:
            group_scores = None if search.group_scores is None else torch.tensor(search.group_scores).to(logits.device)
            may_end = search.length >= settings.min_length
            scores, choices = candidates(logits, group_scores, settings, may_end=may_end, seed=generator)
            search.accept(scores.cpu().numpy(), choices.cpu().numpy())
            if search.is_done:
                return torch.from_numpy(search.texts()).to(input_ids)
            if search.sources is not None:
                cache = reordered(cache, torch.tensor(search.sources, device=self.device))
            words = torch.tensor(search.words[:, None], device=self.device)
            positions = positions + 1
            out = self(words, token_type_ids=types, position_ids=positions, past_key_values=cache)
            cache, logits = out.past_key_values, out.logits[:, 0]


def candidates(
    logits: Tensor,
    group_scores: Tensor | None,
    settings: GenerationSettings,
    *,
    may_end: bool,
    seed: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Find the words that texts may go on with.

    Args:
        logits: `[rows, vocab]`.
        group_scores: with beams, their log probabilities `[groups, beams]`, where `groups * beams` is `rows`.
        settings: what was asked for.
        may_end: whether a text may end here.
        seed: what words are drawn by; None is the framework's own random state.

    Returns:
        For each row or group of beams the scores `[groups, settings.num_candidates]` and the words, integers of that
        shape: the best first, or in the order in which they were drawn. Of the beam number `b` the word `w` is
        `b * vocab + w`.
    """
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if group_scores is not None:
        scores = F.log_softmax(scores, dim=-1)
    if not may_end and settings.eos_token_ids:
        scores = scores.index_fill(1, torch.tensor(settings.eos_token_ids, device=scores.device), -torch.inf)
    if settings.do_sample:
        scores = likely(scores / settings.temperature, settings.top_k, settings.top_p, settings.least_kept)
    if group_scores is not None:
        scores = (scores.unflatten(0, group_scores.shape) + group_scores[..., None]).flatten(1)
    noisy = scores
    if settings.do_sample:
        # The highest of scores with Gumbel noise are draws by the softmax, without replacement. In float32 the noise
        # would end at 16.6, and the least likely words of a large vocabulary would never be drawn.
        dtype = torch.float32 if scores.device.type == "mps" else torch.float64
        uniform = torch.rand(scores.shape, dtype=dtype, device=scores.device, generator=seed)
        noisy = scores - (-uniform.log()).log()
    count = min(settings.num_candidates, noisy.shape[1])
    best = noisy.argmax(dim=1, keepdim=True) if count == 1 else noisy.topk(count).indices
    return scores.gather(1, best), best


def likely(scores: Tensor, top_k: int, top_p: float, least_kept: int = 1) -> Tensor:
    """Return scores `[rows, vocab]` with those of unlikely words at minus infinity.

    Args:
        scores: logits, or log probabilities.
        top_k: how many words are kept; 0 is all. Of equal scores all are kept.
        top_p: keep the likeliest words up to the first with which their probabilities sum up to this.
        least_kept: how many words are kept in any case.

    Example:
        >>> likely(torch.tensor([[0.5, 0.2, 0.3]]).log(), top_k=0, top_p=0.6).isinf().tolist()
        [[False, True, False]]
    """
    if top_k:
        least = scores.topk(min(max(top_k, least_kept), scores.shape[1])).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if top_p < 1:
        ordered = scores.sort(dim=1, descending=True).values
        probabilities = ordered.softmax(dim=1)
        is_kept = probabilities.cumsum(dim=1) - probabilities < top_p
        is_kept[:, :least_kept] = True
        least = ordered.gather(1, is_kept.sum(dim=1, keepdim=True) - 1)
        scores = scores.masked_fill(scores < least, -torch.inf)
    return scores


def repeated(cache: KeyValueCache, copies: int) -> KeyValueCache:
    """Return a cache with each row as often as `copies` says, one after the other."""
    if copies == 1:
        return cache

    def rows(values: Any) -> Any:
        return None if values is None else values.repeat_interleave(copies, 0)

    layers = tuple(type(layer)(*map(rows, layer)) for layer in cache.layers)
    return cache._replace(layers=layers, mask=rows(cache.mask), encoder_mask=rows(cache.encoder_mask))


def reordered(cache: KeyValueCache, rows: Tensor) -> KeyValueCache:
    """Return a cache whose rows go on from others of the same prompt, whose mask and encoder's output are theirs too.

    Args:
        cache: of a batch.
        rows: integers `[batch]`, the row that each goes on from.
    """
    layers = tuple(
        layer._replace(key=layer.key.index_select(0, rows), value=layer.value.index_select(0, rows))
        for layer in cache.layers
    )
    return cache._replace(layers=layers)
