"""Turn logits into proposals: a token for every masked row, its confidence, and the score that ranks it.

The order of operations (docs/api.md has it too): logits → `logits_eos_inf` → `logit_bias` → `end_thinking` → confidence
is taken here, untempered, over all columns → x0 by Gumbel-max among top-k, then top-p, with the mask id and ids past
`vocab_size` banned from x0 only. Some models score the distribution that is drawn from (`scores_drawn`); confidence is
the same there.

Canvases that draw in the same way share every operation, whatever their seeds and steps: a row's noise is a function of
its coordinates, so a batch of any size takes as many kernels as one canvas.

Shape suffixes: R rows (masked positions) of some canvases, V columns of the head (`embedding_size`), A alternatives,
B biases.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from llada_core.counter_noise import Purpose, signed, uniform
from llada_core.sampling.canvas import Canvas, tokens_before
from llada_core.sampling.constraints.candidates import TokenSet
from llada_core.sampling.end_thinking import Boost, next_boost
from llada_core.sampling.parallel_rules import PARALLEL_RULES
from llada_core.sampling.params import RANDOM_REMASKING, GenerationParams
from llada_core.sampling.proposals import pack
from llada_core.sampling.scores import SCORES, shannon_entropy

# The most numbers that a CPU draws at once; more would not stay in its cache.
_MAX_CPU_DRAWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Adjustments:
    """What is added to logits, and which tokens are never written.

    Attributes:
        eos_id: the id that is never generated; None if it may be.
        banned_ids, end_ids: see `Layout`.
        min_tokens, logit_bias: see `GenerationParams`.
        boost: the push towards the end of thinking.
    """

    eos_id: int | None
    banned_ids: tuple[int, ...]
    end_ids: frozenset[int]
    min_tokens: int
    logit_bias: tuple[tuple[int, float], ...]
    boost: Boost | None

    @classmethod
    def of(cls, canvas: Canvas, step: int) -> Self:
        """Return the adjustments of a canvas's step."""
        params, layout = canvas.params, canvas.layout
        eos_id = layout.special_tokens.eos_id if params.logits_eos_inf else None
        bias, boost = tuple(params.logit_bias.items()), _boost(params, canvas, step)
        return cls(eos_id, layout.banned_ids, layout.end_ids, params.min_tokens, bias, boost)

    def add(self, logits_RV: Tensor, positions_R: Tensor) -> None:
        """Change logits in place, before confidence is read from them."""
        if self.eos_id is not None:
            logits_RV[:, self.eos_id] = -torch.inf
        if self.logit_bias:
            columns = zip(*self.logit_bias, strict=True)
            ids_B, biases_B = (torch.tensor(column, device=logits_RV.device) for column in columns)
            logits_RV[:, ids_B] += biases_B
        if self.boost is not None:
            logits_RV[:, self.boost.token_id] += self.boost.value * (positions_R == self.boost.position)

    def ban(self, logits_RV: Tensor, positions_R: Tensor) -> None:
        """Set the logits of tokens that may not be written to −inf, in place."""
        for banned_id in self.banned_ids:
            logits_RV[:, banned_id] = -torch.inf
        if self.min_tokens:
            is_early_R = positions_R < self.min_tokens
            for end_id in self.end_ids:
                logits_RV[:, end_id].masked_fill_(is_early_R, -torch.inf)


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides what is proposed for logits but the noise: rows with equal recipes are drafted together.

    Attributes:
        reads_entropy: a parallel rule reads the distributions' entropies.
        last_ids: the ids that are committed last (`confidence_eos_eot_inf`).

    The others are those of `GenerationParams` and `Reporting`.
    """

    adjustments: Adjustments
    temperature: float
    top_k: int
    top_p: float
    remasking: str
    remasking_temperature: float
    reads_entropy: bool
    last_ids: tuple[int, ...]
    num_alternatives: int

    @classmethod
    def of(cls, canvas: Canvas, step: int) -> Self:
        """Return the recipe of a canvas's step."""
        params, rule = canvas.params, canvas.params.parallel_rule
        ends_last = params.confidence_eos_eot_inf and params.remasking not in RANDOM_REMASKING
        return cls(
            adjustments=Adjustments.of(canvas, step),
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            remasking=params.remasking,
            remasking_temperature=params.remasking_temperature,
            reads_entropy=rule is not None and PARALLEL_RULES[rule[0]].reads_entropy,
            last_ids=tuple(sorted(canvas.layout.special_tokens.end_ids)) if ends_last else (),
            num_alternatives=canvas.reporting.num_alternatives,
        )

    @property
    def alters_the_draw(self) -> bool:
        """Whether tokens are drawn from another distribution than the model's own."""
        return self.temperature > 0 or self.top_k > 0 or self.top_p < 1

    @property
    def reads_logits_after_the_draw(self) -> bool:
        """Whether scores or confidence are read from the logits as they were before ids were banned from x0."""
        return SCORES[self.remasking].reads_logits or self.reads_entropy or bool(self.last_ids)


class Coordinates(NamedTuple):
    """The coordinates of the rows' noise, int64 [R] each; positions are those of the response."""

    seeds_R: Tensor
    steps_R: Tensor
    positions_R: Tensor

    @classmethod
    def of(cls, parts: Sequence[tuple[Canvas, int, np.ndarray]], device: torch.device) -> Self:
        """Lay out the rows of several canvases: each with its step and the positions of its rows."""
        table = np.concatenate(
            [
                np.stack(np.broadcast_arrays(np.int64(signed(canvas.params.seed)), np.int64(step), positions_R))
                for canvas, step, positions_R in parts
            ],
            axis=1,
        )
        return cls(*torch.from_numpy(table).to(device, non_blocking=True))

    def split(self, size: int) -> Iterator[Self]:
        """Split the rows into parts of this size, as `Tensor.split` does."""
        return (type(self)(*parts) for parts in zip(*(column_R.split(size) for column_R in self), strict=True))

    def draw(self, purpose: Purpose) -> Tensor:
        """Draw a uniform number for each row, float64 [R]."""
        return uniform(self.seeds_R, purpose, self.steps_R, self.positions_R)

    def draw_columns(self, purpose: Purpose, num_columns: int) -> Tensor:
        """Draw a uniform number for each row and column, float64 [R, V]."""
        columns_V = torch.arange(num_columns, device=self.seeds_R.device)
        seeds_R1, *others = (coordinates_R.unsqueeze(1) for coordinates_R in self)
        return uniform(seeds_R1, purpose, *others, columns_V)


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """The proposals at some rows, and what could be proposed instead (`constraints.candidates`).

    Attributes:
        packed: the fields of `Proposals`, on the device.
        candidates_RV: the logits of the tokens that may be written.
        allowed_RV: the same with those at −inf that top-k and top-p leave out.
        probabilities_RV: the confidence of every token.
    """

    packed: Tensor
    candidates_RV: Tensor
    allowed_RV: Tensor
    probabilities_RV: Tensor

    def rows(self, start: int, stop: int) -> "Draft":
        """Return the part of some adjacent rows."""
        part = slice(start, stop)
        candidates_RV = self.candidates_RV[part]
        allowed_RV = candidates_RV if self.allowed_RV is self.candidates_RV else self.allowed_RV[part]
        return Draft(self.packed[:, part], candidates_RV, allowed_RV, self.probabilities_RV[part])

    def best(self, row: int, tokens: TokenSet) -> int:
        """Return the most probable of these tokens; one that `min_tokens` rules out only where it rules out all."""
        logits_V = self.candidates_RV[row]
        if logits_V.is_cpu:
            return tokens.best(logits_V.numpy())
        return int(tokens.ids_M[int(logits_V[torch.from_numpy(tokens.ids_M).to(logits_V.device)].argmax())])

    def confidence(self, row: int, token_id: int) -> float:
        """Return a token's softmax probability."""
        return float(self.probabilities_RV[row, token_id])

    def logits(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits of all tokens, float32 [V], and the same with those at −inf that top-k, top-p or
        `min_tokens` rule out.
        """
        all_V = self.candidates_RV[row].cpu().numpy()
        return all_V, all_V if self.allowed_RV is self.candidates_RV else self.allowed_RV[row].cpu().numpy()


def draft(
    logits_RV: Tensor, recipe: Recipe, coordinates: Coordinates, *, vocab_size: int, scores_drawn: bool = False
) -> Draft:
    """Propose a token at each row.

    Args:
        logits_RV: float32, after guidance; overwritten.
        scores_drawn: see `PublishedSampler`.
    """
    positions_R = coordinates.positions_R
    recipe.adjustments.add(logits_RV, positions_R)
    # torch's softmax takes half the time of its logsumexp.
    probabilities_RV = logits_RV.softmax(dim=1)
    scores_drawn = scores_drawn and recipe.alters_the_draw
    candidates_RV = logits_RV.clone() if scores_drawn or recipe.reads_logits_after_the_draw else logits_RV
    recipe.adjustments.ban(candidates_RV, positions_R)
    candidates_RV = candidates_RV[:, :vocab_size]
    # At temperature 0, which takes the largest, top-k and top-p change nothing.
    allowed_RV = _limited(candidates_RV, recipe) if recipe.temperature else candidates_RV
    x0_R = draw(allowed_RV, recipe.temperature, coordinates)
    alternatives = _most_probable(candidates_RV, probabilities_RV, recipe.num_alternatives)
    if recipe.last_ids:
        # After x0 is chosen: EOS and EoT may still be proposed, with confidence 0, so they are committed last.
        for last_id in recipe.last_ids:
            logits_RV[:, last_id] = -torch.inf
        probabilities_RV = logits_RV.softmax(dim=1)
    confidence_R = probabilities_RV.gather(1, x0_R.unsqueeze(1)).squeeze(1)
    scored_RV, scored_R = logits_RV, confidence_R
    if scores_drawn:
        scored_RV = _limited(logits_RV, recipe) / (recipe.temperature or 1)
        scored_R = scored_RV.softmax(dim=1).gather(1, x0_R.unsqueeze(1)).squeeze(1)
    scores_R = _score(scored_RV, scored_R, recipe, coordinates)
    entropies_R = shannon_entropy(logits_RV) if recipe.reads_entropy else torch.zeros_like(scores_R)
    packed = pack(x0_R, confidence_R, scores_R, entropies_R, *alternatives)
    return Draft(packed, candidates_RV, allowed_RV, probabilities_RV)


def _boost(params: GenerationParams, canvas: Canvas, step: int) -> Boost | None:
    if params.end_thinking is None:
        return None
    response_L, active = tokens_before(canvas, step)[canvas.layout.response], canvas.schedule.active
    is_masked = response_L[active.start : active.stop] == canvas.layout.mask_id
    return next_boost(params.end_thinking, response_L, active.start + int(is_masked.argmax()))


def _score(logits_RV: Tensor, confidence_R: Tensor, recipe: Recipe, coordinates: Coordinates) -> Tensor:
    """Score each proposal; the highest are committed."""

    def draw_score() -> Tensor:
        return coordinates.draw(Purpose.REMASKING)

    scores_R = SCORES[recipe.remasking].compute(logits_RV, confidence_R, draw_score)
    if recipe.remasking_temperature:
        # The highest of these sums are a draw without replacement, in proportion to exp(score / temperature).
        scores_R = scores_R.double() - recipe.remasking_temperature * torch.log(-torch.log(draw_score()))
    return scores_R


def _most_probable(candidates_RV: Tensor, probabilities_RV: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the ids of the most probable candidates and their probabilities, both [R, A]."""
    if number == 0:
        nothing_RA = probabilities_RV[:, :0]
        return nothing_RA.long(), nothing_RA
    ids_RA = candidates_RV.topk(number, dim=1).indices
    return ids_RA, probabilities_RV.gather(1, ids_RA)


def _limited(candidates_RV: Tensor, recipe: Recipe) -> Tensor:
    """Set the logits that top-k and top-p leave out to −inf."""
    return top_p(top_k(candidates_RV, recipe.top_k), recipe.top_p, recipe.temperature or 1)


def draw(allowed_RV: Tensor, temperature: float, coordinates: Coordinates) -> Tensor:
    """Draw a token for each row: the most probable at temperature 0, else a sample of softmax(logits / temperature)."""
    if temperature == 0:
        return _argmax(allowed_RV)
    num_rows, num_columns = allowed_RV.shape
    # The noise takes several times the memory of the logits.
    size = max(1, _MAX_CPU_DRAWS // num_columns) if allowed_RV.is_cpu else num_rows
    return torch.cat(
        [
            gumbel_max(part_RV, part.draw_columns(Purpose.GUMBEL, num_columns), temperature)
            for part_RV, part in zip(allowed_RV.split(size), coordinates.split(size), strict=True)
        ]
    )


def _argmax(logits_RV: Tensor) -> Tensor:
    """Return the column of each row's largest logit; on a tie, the first."""
    if logits_RV.is_cpu:
        # numpy's is vectorised and takes a tenth of the time of torch's.
        return torch.from_numpy(logits_RV.numpy().argmax(axis=1))
    return logits_RV.argmax(dim=1)


def gumbel_max(logits_RV: Tensor, draws_RV: Tensor, temperature: float) -> Tensor:
    """Return argmax(logits - T log(-log u)), a sample from softmax(logits / T)."""
    # float64: low-precision Gumbel noise hurts the text (arXiv:2409.02908).
    return (logits_RV.double() - temperature * torch.log(-torch.log(draws_RV))).argmax(dim=1)


def top_k(logits_RV: Tensor, k: int) -> Tensor:
    """Set all but the k largest logits of each row to −inf; k = 0 keeps all."""
    if k == 0 or k >= logits_RV.shape[1]:
        return logits_RV
    smallest_kept_R1 = logits_RV.topk(k, dim=1).values[:, -1:]
    return logits_RV.masked_fill(logits_RV < smallest_kept_R1, -torch.inf)


def top_p(logits_RV: Tensor, p: float, temperature: float) -> Tensor:
    """Keep the smallest set of tokens whose tempered probabilities reach p, and always the most probable."""
    if p == 1:
        return logits_RV
    probabilities_RV = (logits_RV.double() / temperature).softmax(dim=1)
    sorted_RV, columns_RV = probabilities_RV.sort(dim=1, descending=True, stable=True)
    is_past_RV = sorted_RV.cumsum(dim=1) - sorted_RV >= p
    is_past_RV[:, 0] = False
    return logits_RV.masked_fill(is_past_RV.scatter(1, columns_RV, is_past_RV), -torch.inf)
