"""A canvas: all state of one request, from the first mask to the final text.

It lives on the host. A batch is made of canvases for one step only; nothing about a canvas depends on its neighbours.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llada_core.errors import InvalidParameterError
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.kv_cache import KVCache
from llada_core.sampling.cache_policy import WINDOWS
from llada_core.sampling.events import Change, DenoisingStep, Prediction
from llada_core.sampling.parallel_rules import PARALLEL_RULES
from llada_core.sampling.params import SEMI_AUTOREGRESSIVE_ORIGIN, GenerationParams
from llada_core.sampling.schedule import BlockPlan, plan_blocks
from llada_core.text.final_text import FinalText
from llada_core.text.special_tokens import SpecialTokens
from llada_core.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Gap:
    """`length` masked positions among the segments of an infilling canvas."""

    length: int


class Canvas:
    """Prompt and response, what is masked, what is fixed, and the steps still to run.

    Positions count from the first response token, but those of `window`, which count from the first token. The tokens
    before the response are the prompt; an infilling canvas has none, its fixed segments are part of the response.

    Attributes:
        params: the settings with every default resolved.
        tokens: int64 ids, prompt included; masked positions hold the mask id.
        num_given: tokens of the response that are not the answer's but given: an infilling canvas's segments.
        num_prompt_tokens: these, the prompt's and the suffix's.
        fixed: the positions that guidance masks in its unconditional pass: prompt, constraints, given segments.
        step: the number of steps run.
        caches: keys and values of the passes, with guidance two; None before the first step, after the last, and when
            they were given up. Without them the next step goes over the whole canvas, as at a block's first step.
        final_length: response positions from the left that no later step changes, the end token left out.
        text_length: those of them that belong to the text: all, or the ones before a stop string.
        finish_reason: None while steps remain, then `stop` (an end token) or `length`.
    """

    @classmethod
    def for_prompt(
        cls,
        prompt: Sequence[int],
        params: GenerationParams,
        *,
        config: LLaDAConfig,
        special_tokens: SpecialTokens,
        tokenizer: Tokenizer | None = None,
        suffix: Sequence[int] = (),
        constraints: Mapping[int, Sequence[int]] | None = None,
        include_predictions: bool = False,
        num_alternatives: int = 0,
    ) -> "Canvas":
        """A response of `params.gen_length` masks after `prompt`.

        Args:
            tokenizer: what stop strings are looked for with.
            suffix: what comes after the response, which then is a gap: EOS, EoT and mask are never written into it.
            constraints: response position → ids that stand from there on.
            include_predictions: report the best guess at every masked position in each step.
            num_alternatives: report so many of the most probable tokens wherever one is committed.

        Raises:
            InvalidParameterError: an id out of range or the mask id in the prompt; constraints that overlap or leave
                the response; fewer steps than blocks; a canvas longer than the model's positions; stop strings without
                a tokenizer; a suffix beside a method that does not see it.
        """
        if not prompt:
            raise InvalidParameterError("prompt has 0 tokens; it must have at least 1", "prompt")
        hint = "; fill gaps with `suffix`, or with `canvas` on /v1/denoise"
        _check_ids(prompt, config, special_tokens, "prompt", hint)
        _check_ids(params.stop_token_ids, config, special_tokens, "stop_token_ids")
        config.require_token_ids(params.logit_bias, "logit_bias")
        _check_ids(suffix, config, special_tokens, "suffix")
        if suffix:
            _refuse_origin(params, "with a suffix")
        _check_length(len(prompt) + params.gen_length + len(suffix), config, "gen_length")
        response = np.full(params.gen_length, special_tokens.mask_id, dtype=np.int64)
        for position, ids in sorted((constraints or {}).items()):
            _check_ids(ids, config, special_tokens, "constraints")
            _place_constraint(response, position, ids, special_tokens.mask_id)
        return cls(
            prompt,
            response,
            params,
            special_tokens,
            suffix=suffix,
            tokenizer=tokenizer,
            include_predictions=include_predictions,
            num_alternatives=num_alternatives,
        )

    @classmethod
    def infill(
        cls,
        segments: Iterable[Sequence[int] | Gap],
        params: GenerationParams,
        *,
        config: LLaDAConfig,
        special_tokens: SpecialTokens,
        include_predictions: bool = False,
    ) -> "Canvas":
        """A canvas of fixed segments and gaps; blocks are cut over the whole of it.

        `params.gen_length` is replaced by the canvas's length. EOS, EoT and mask are never written into a gap.
        """
        parts = []
        for segment in segments:
            if isinstance(segment, Gap):
                if segment.length < 1:
                    raise InvalidParameterError(f"canvas: mask is {segment.length}; it must be at least 1", "canvas")
                parts.append(np.full(segment.length, special_tokens.mask_id, dtype=np.int64))
            else:
                _check_ids(segment, config, special_tokens, "canvas", '; write gaps as {"mask": n}')
                parts.append(np.array(segment, dtype=np.int64))
        response = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
        if not (response == special_tokens.mask_id).any():
            raise InvalidParameterError('canvas has no gap; it must have at least one {"mask": n}', "canvas")
        _check_length(len(response), config, "canvas")
        config.require_token_ids(params.logit_bias, "logit_bias")
        for field, value in (("stop", list(params.stop)), ("stop_token_ids", sorted(params.stop_token_ids))):
            if value:
                raise InvalidParameterError(f"{field} is {value}; it must be absent on an infilling canvas", field)
        _refuse_origin(params, "on an infilling canvas")
        params = replace(params, gen_length=len(response))
        return cls([], response, params, special_tokens, include_predictions=include_predictions)

    def __init__(
        self,
        prompt: Sequence[int],
        response: np.ndarray,
        params: GenerationParams,
        special_tokens: SpecialTokens,
        *,
        suffix: Sequence[int] = (),
        tokenizer: Tokenizer | None = None,
        include_predictions: bool = False,
        num_alternatives: int = 0,
    ) -> None:
        """Use `for_prompt` or `infill`, which check what they are given."""
        is_infilling = not prompt or len(suffix) > 0
        self.special_tokens = special_tokens
        self.prompt_length = len(prompt)
        self.tokens = np.concatenate((np.array(prompt, dtype=np.int64), response, np.array(suffix, dtype=np.int64)))
        self._response_stop = self.prompt_length + len(response)
        self.fixed = self.tokens != special_tokens.mask_id
        self.include_predictions = include_predictions
        self.num_alternatives = num_alternatives
        # Constraints are a part of the answer, an infilling canvas's segments are not.
        self.num_given = 0 if prompt else int(self.fixed.sum())
        self.num_prompt_tokens = len(prompt) + self.num_given + len(suffix)
        self._final_text = _stopping_text(params, tokenizer)
        self.banned_ids = sorted({special_tokens.mask_id} | (special_tokens.end_ids if is_infilling else set()))
        ignored = params.ignore_eos or is_infilling
        self._end_ids = params.stop_token_ids | (frozenset() if ignored else special_tokens.end_ids)
        block_length = params.effective_block_length
        default_steps = params.gen_length if prompt else self.num_masked
        steps = None if params.parallel_rule else params.steps or default_steps
        self.params = replace(params, steps=steps, block_length=block_length)
        self._plan = plan_blocks(self._is_masked(0, len(response)), block_length, params)
        self._block_step = 0
        self._predictions: dict[int, Prediction] = {}
        self.step = 0
        self.caches: tuple[KVCache, ...] | None = None
        self.final_length = self.text_length = 0
        self.finish_reason: str | None = None
        self._advance_text()

    @property
    def response(self) -> list[int]:
        """The response as it stands, `gen_length` ids; mask ids may remain right of the end."""
        return self.tokens[self.prompt_length : self._response_stop].tolist()

    @property
    def text_ids(self) -> list[int]:
        """The final ids from the left: up to the first mask, the end token left out."""
        return self.response[: self.text_length]

    @property
    def active_block(self) -> BlockPlan:
        """The block in which the next step commits."""
        return self._plan[0]

    @property
    def forward_passes(self) -> int:
        """Forward passes run so far; guidance takes two a step."""
        return self.step * self.passes_per_step

    @property
    def passes_per_step(self) -> int:
        return 2 if self.params.cfg_scale else 1

    @property
    def visible_length(self) -> int:
        """Tokens that the model sees in the next step, prompt included."""
        if self.params.method == SEMI_AUTOREGRESSIVE_ORIGIN:
            return self.prompt_length + self.active_block.stop
        return len(self.tokens)

    @property
    def window(self) -> range:
        """Positions, counted from the first token, that the next step sends through the model."""
        visible = range(self.visible_length)
        interval = self.params.cache_refresh_interval
        is_refresh = self._block_step == 0 or (interval is not None and self._block_step % interval == 0)
        if self.caches is None or is_refresh:
            return visible
        block = range(self.prompt_length + self.active_block.start, self.prompt_length + self.active_block.stop)
        return WINDOWS[self.params.cache](block, visible)

    def unconditional_tokens(self) -> np.ndarray:
        """The canvas with every fixed token masked: the unconditional pass of guidance."""
        return np.where(self.fixed, self.special_tokens.mask_id, self.tokens)

    def proposal_positions(self) -> np.ndarray:
        """Response positions at which the next step needs logits: the active block's masks; for predictions all masks
        of the window.
        """
        if self.include_predictions:
            window = self.window
            start, stop = max(0, window.start - self.prompt_length), window.stop - self.prompt_length
        else:
            start, stop = self.active_block.start, self.active_block.stop
        return self._is_masked(start, stop).nonzero()[0] + start

    def commit(
        self,
        positions: np.ndarray,
        token_ids: np.ndarray,
        confidence: np.ndarray,
        scores: np.ndarray,
        entropies: np.ndarray,
        alternatives: np.ndarray,
    ) -> DenoisingStep:
        """Write the best-scored proposals of the active block; of equals the left one.

        Args:
            positions: response positions of the proposals, as `proposal_positions` gave them.
            alternatives: [2, num_alternatives, R], token ids and their probabilities.
        """
        block = self.active_block
        candidates = ((positions >= block.start) & (positions < block.stop)).nonzero()[0]
        ranked = candidates[np.argsort(-scores[candidates], kind="stable")]
        chosen = np.sort(ranked[self._is_sure(confidence[ranked], entropies[ranked])])
        self.tokens[self.prompt_length + positions[chosen]] = token_ids[chosen]
        changes = tuple(
            Change(
                "commit",
                self.step,
                int(positions[i]),
                int(token_ids[i]),
                float(confidence[i]),
                tuple((int(token_id), float(probability)) for token_id, probability in alternatives[:, :, i].T),
            )
            for i in chosen
        )
        if self.include_predictions:
            self._remember_predictions(positions, token_ids, confidence)
        self.step += 1
        self._block_step += 1
        if not self._is_masked(block.start, block.stop).any():
            del self._plan[0]
            self._block_step = 0
        self._advance_text()
        if self.finish_reason is not None:
            self.caches = None
        return DenoisingStep(
            step=self.step - 1,
            block=block.index,
            changes=changes,
            masked=self.num_masked,
            final_length=self.final_length,
            text_length=self.text_length,
            finish_reason=self.finish_reason,
            predictions=tuple(self._predictions.values()) if self.include_predictions else None,
        )

    def _is_sure(self, confidence_N: np.ndarray, entropy_N: np.ndarray) -> np.ndarray:
        """Which of the active block's proposals, best first, are committed: at least the first."""
        transfers = self.active_block.transfers
        if transfers is not None:
            return np.arange(len(confidence_N)) < transfers[self._block_step]
        assert self.params.parallel_rule is not None
        rule, value = self.params.parallel_rule
        is_sure_N = PARALLEL_RULES[rule](confidence_N, entropy_N, value)
        is_sure_N[0] = True
        return is_sure_N

    def _remember_predictions(self, positions: np.ndarray, token_ids: np.ndarray, confidence: np.ndarray) -> None:
        """Guesses from left to right for what is masked; outside a cached step's window the latest ones stand."""
        latest = {
            int(position): Prediction(int(position), int(token_id), float(probability))
            for position, token_id, probability in zip(positions, token_ids, confidence, strict=True)
        }
        guesses = sorted((self._predictions | latest).items())
        is_masked = self._is_masked(0, self._response_stop - self.prompt_length)
        self._predictions = {position: guess for position, guess in guesses if is_masked[position]}

    @property
    def num_masked(self) -> int:
        return int(self._is_masked(0, self._response_stop - self.prompt_length).sum())

    def _is_masked(self, start: int, stop: int) -> np.ndarray:
        return self.tokens[self.prompt_length + start : self.prompt_length + stop] == self.special_tokens.mask_id

    def _advance_text(self) -> None:
        """Move the border of the final text to the right. At an end token or stop string nothing can change it more."""
        mask_id = self.special_tokens.mask_id
        for token in self.response[self.final_length :]:
            if token == mask_id:
                break
            if token in self._end_ids:
                self.finish_reason = "stop"
                return
            self.final_length += 1
            self.text_length = self.final_length
            if self._final_text is not None:
                self._final_text.push([token])
                if self._final_text.is_stopped:
                    self.text_length = self._final_text.num_tokens
                    self.finish_reason = "stop"
                    return
        if not self._plan:
            self.finish_reason = "length"


def _stopping_text(params: GenerationParams, tokenizer: Tokenizer | None) -> FinalText | None:
    """Where stop strings are looked for."""
    if not params.stop:
        return None
    if tokenizer is None:
        raise InvalidParameterError(f"stop is {list(params.stop)}; without a tokenizer it must be absent", "stop")
    return FinalText(tokenizer, params.stop)


def _refuse_origin(params: GenerationParams, where: str) -> None:
    if params.method == SEMI_AUTOREGRESSIVE_ORIGIN:
        raise InvalidParameterError(
            f"method is {params.method!r}; {where} it must be another: it does not see what comes later", "method"
        )


def _check_length(length: int, config: LLaDAConfig, field: str) -> None:
    if length > config.max_sequence_length:
        raise InvalidParameterError(
            f"{field}: the canvas has {length} positions; the model has at most {config.max_sequence_length}", field
        )


def _check_ids(
    ids: Collection[int], config: LLaDAConfig, special_tokens: SpecialTokens, field: str, hint: str = ""
) -> None:
    special_tokens.require_no_mask(ids, field, hint)
    config.require_token_ids(ids, field)


def _place_constraint(response: np.ndarray, position: int, ids: Sequence[int], mask_id: int) -> None:
    stop = position + len(ids)
    if not ids:
        raise InvalidParameterError(
            f"constraints: the one at position {position} has 0 tokens; it must have at least 1", "constraints"
        )
    if position < 0 or stop > len(response):
        raise InvalidParameterError(
            f"constraints: {len(ids)} tokens at position {position} end at {stop}; "
            f"they must lie within gen_length ({len(response)})",
            "constraints",
        )
    if (response[position:stop] != mask_id).any():
        raise InvalidParameterError(
            f"constraints: the one at position {position} overlaps an earlier one", "constraints"
        )
    response[position:stop] = ids
