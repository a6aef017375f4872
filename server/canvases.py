"""Turns a request's body and token ids into canvases. Nothing else in the server constructs a `Canvas`."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llada_core.errors import InvalidParameterError
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.constraints.constraint import Constraint
from llada_core.sampling.events import Reporting
from llada_core.sampling.fork import Edits, prepare_fork
from llada_core.sampling.frame import Frame
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling, prepare_responses
from server.http.api_error import bad_request
from server.schemas.denoise import DenoiseRequest, MaskGap
from server.schemas.diffusion import DiffusionFields
from server.schemas.openai import OpenAIFields

DEFAULT_MAX_TOKENS = 128

_PLAIN = Reporting()
_MASK_HINT = "; fill gaps with `suffix`, or with `canvas` on /v1/denoise"


@dataclass(frozen=True, slots=True)
class Canvases:
    """Builds the canvases of one model.

    Attributes:
        max_model_len: the most positions that a canvas may have.
    """

    vocabulary: Vocabulary
    max_model_len: int

    def choices(
        self,
        body: OpenAIFields,
        prompts: Sequence[Sequence[int]],
        *,
        suffix: Sequence[int] = (),
        constraint: Constraint | None = None,
    ) -> list[Canvas]:
        """The canvases of `n` choices after each prompt. Choice i of every prompt uses the seed plus i.

        Raises:
            APIError, InvalidParameterError: the request breaks a rule.
        """
        seed = seed_or_random(body.seed)
        reporting = Reporting(num_alternatives=body.num_alternatives or 0)
        seeds = range(seed, seed + body.n)
        return [
            canvas
            for prompt in prompts
            for canvas in self._responses(
                body, prompt, seeds, suffix=suffix, constraint=constraint, reporting=reporting
            )
        ]

    def response(
        self,
        body: DiffusionFields,
        prompt: Sequence[int],
        *,
        pinned: Mapping[int, Sequence[int]] | None = None,
        constraint: Constraint | None = None,
        reporting: Reporting = _PLAIN,
    ) -> Canvas:
        """A canvas whose response, after `prompt`, is masked.

        Args:
            pinned: response position → token ids fixed from that position on.
            constraint: the texts that the response may be.

        Raises:
            APIError, InvalidParameterError: the request breaks a rule.
        """
        seeds = (seed_or_random(body.seed),)
        (canvas,) = self._responses(body, prompt, seeds, pinned=pinned, constraint=constraint, reporting=reporting)
        return canvas

    def infilling(self, body: DenoiseRequest, segments: Sequence[Sequence[int] | MaskGap]) -> Canvas:
        """A canvas of fixed segments and the gaps between them.

        Raises:
            APIError, InvalidParameterError: the request breaks a rule.
        """
        length = sum(segment.mask if isinstance(segment, MaskGap) else len(segment) for segment in segments)
        if length > self.max_model_len:
            raise bad_request(
                f"canvas has {length} positions; it must have at most max_model_len ({self.max_model_len})",
                "canvas",
                "context_length_exceeded",
            )
        return prepare_infilling(
            [Gap(segment.mask) if isinstance(segment, MaskGap) else segment for segment in segments],
            self._params(body, gen_length=max(1, length), seed=seed_or_random(body.seed)),
            self.vocabulary,
            reporting=body.reporting(),
        )

    def fork(self, body: DenoiseRequest, parent: Canvas, frame: Frame, edits: Edits) -> Canvas:
        """A canvas that goes on from a frame of `parent`, with the settings that the request gives in place of some.

        Raises:
            InvalidParameterError: an edit or a setting that breaks a rule.
        """
        reporting = body.reporting(parent.reporting)
        return prepare_fork(
            parent, frame, body.altered(parent.params), self.vocabulary, edits=edits, reporting=reporting
        )

    def from_step(self, canvas: Canvas, step: int) -> Canvas:
        """The same canvas, whose first step has the number `step`, on which its noise hangs."""
        start, params = replace(canvas.start, step=step), canvas.params.altered()
        return prepare_fork(canvas, start, params, self.vocabulary, reporting=canvas.reporting)

    def generation_length(self, body: DiffusionFields, prompt_length: int, suffix_length: int = 0) -> int:
        """The number of response positions: as requested, or else the default, limited to the room left.

        Raises:
            APIError: there is too little room.
        """
        room = self.max_model_len - prompt_length - suffix_length
        lengths = f"the prompt has {prompt_length} tokens{f' and the suffix {suffix_length}' if suffix_length else ''}"
        if room < 1:
            raise bad_request(
                f"{lengths}; max_model_len is {self.max_model_len} and must leave room for at least one more token",
                "prompt",
                "context_length_exceeded",
            )
        length = min(DEFAULT_MAX_TOKENS, room) if body.length is None else body.length
        if length > room:
            raise bad_request(
                f"{lengths}, and {body.length_name} is {length}; "
                f"together they must be at most max_model_len ({self.max_model_len})",
                body.length_name,
                "context_length_exceeded",
            )
        return length

    def _params(self, body: DiffusionFields, *, gen_length: int, seed: int) -> GenerationParams:
        return body.to_params(gen_length=gen_length, seed=seed, defaults=self.vocabulary.shape.sampler.defaults)

    def _responses(
        self,
        body: DiffusionFields,
        prompt: Sequence[int],
        seeds: Sequence[int],
        *,
        suffix: Sequence[int] = (),
        pinned: Mapping[int, Sequence[int]] | None = None,
        constraint: Constraint | None = None,
        reporting: Reporting,
    ) -> list[Canvas]:
        length = self.generation_length(body, len(prompt), len(suffix))
        if constraint is not None and constraint.shortest > length:
            raise bad_request(
                f"{body.length_name} is {length}{'' if body.length else ' by default'}; the shortest answer that "
                f"matches takes {constraint.shortest} tokens",
                body.length_name,
            )
        self.vocabulary.require_tokens(prompt, "prompt", _MASK_HINT)
        try:
            return prepare_responses(
                prompt,
                self._params(body, gen_length=length, seed=seeds[0]),
                self.vocabulary,
                seeds=seeds,
                suffix=suffix,
                pinned=pinned,
                constraint=constraint,
                reporting=reporting,
            )
        except InvalidParameterError as error:
            if error.field != "pinned":
                raise
            # Users write pinned tokens in the field `constraints`.
            raise InvalidParameterError(str(error).replace("pinned", "constraints", 1), "constraints") from None


def seed_or_random(seed: int | None) -> int:
    """The requested seed, or a new random one."""
    return secrets.randbits(53) if seed is None else seed
