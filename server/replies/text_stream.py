"""Turns denoising steps into text, final and draft.

The final text is the part of the response before the first mask; it grows from the left. The draft is the whole
response at the current step.
"""

from collections.abc import Iterable

from llada_core.diffusion.guidance import num_passes
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import Change, DenoisingStep
from llada_core.text.final_text import FinalText
from llada_core.text.tokenizer import Tokenizer
from server.replies.logprobs import ScoredToken

MASK_CHARACTER = "▒"


class TextStream:
    """Follows one request through its steps. It needs nothing else, so any client could do the same.

    Attributes:
        token_ids: the whole response, masks included.
        finish_reason: None until the last step.
        cache_passes: forward passes that only wrote keys and values.
        cached_tokens: tokens of the prompt whose keys and values an earlier request had left.
    """

    def __init__(self, canvas: Canvas, tokenizer: Tokenizer | None) -> None:
        self.token_ids = canvas.response
        self.finish_reason = canvas.finish_reason
        self.denoising_steps = self.cache_passes = self.cached_tokens = 0
        self._prompt_length = canvas.layout.prompt_length
        self._first_step = canvas.start.step
        self._passes_per_step = num_passes(canvas.params.cfg_scale)
        self._mask_id = canvas.layout.mask_id
        self._stop_token_ids = canvas.params.stop_token_ids
        self._changes: list[Change] = []
        self._commits: dict[int, Change] = {}
        self._num_taken = 0
        self._text_length = canvas.text_end.text_length
        self._final_length = 0
        self._tokenizer = tokenizer
        self._final = FinalText(tokenizer, canvas.params.stop) if tokenizer else None
        self._extend_text(canvas.text_end.final_length)

    @property
    def text(self) -> str:
        """The final text so far; empty without a tokenizer."""
        return self._final.text if self._final else ""

    @property
    def text_ids(self) -> list[int]:
        """The ids of the final text."""
        return self.token_ids[: self._text_length]

    @property
    def stop_reason(self) -> str | int | None:
        """What ended the text besides EOS and EoT: the stop string, or the id among `stop_token_ids`."""
        if self._final is not None and self._final.stop_word is not None:
            return self._final.stop_word
        # Empty where a whole answer fills the response to its end.
        end = self.token_ids[self._final_length : self._final_length + 1]
        return end[0] if self.finish_reason == "stop" and end and end[0] in self._stop_token_ids else None

    @property
    def forward_passes(self) -> int:
        return self.denoising_steps * self._passes_per_step

    def num_tokens_in(self, start: int, stop: int) -> int:
        """The number of tokens that begin at one of the text's characters from `start` to before `stop`."""
        return self._final.num_tokens_in(start, stop) if self._final else 0

    def apply(self, event: DenoisingStep) -> str:
        """Apply a step; returns the text that became final with it."""
        for change in event.changes:
            self.token_ids[change.position] = change.token_id
            self._commits[change.position] = change
        self._changes += (*event.changes, *event.overhang)
        self.denoising_steps = event.step + 1 - self._first_step
        self.cache_passes += event.cache_passes
        if event.step == self._first_step:
            self.cached_tokens = min(event.reused_tokens, self._prompt_length)
        self.finish_reason = event.finish_reason
        self._text_length = event.text_length
        return self._extend_text(event.final_length)

    def inherit(self, changes: Iterable[Change]) -> None:
        """Take over the changes that a fork has from its parent."""
        self._changes += changes
        self._commits |= {change.position: change for change in self._changes}

    def changes_before(self, step: int) -> list[Change]:
        """All changes before a step: its own and those inherited, in the order in which they were made."""
        return [change for change in self._changes if change.step < step]

    def take_tokens(self, *, text_offset: int = 0) -> list[ScoredToken]:
        """The tokens whose text became final since the last call.

        Args:
            text_offset: the number of characters that the answer shows before the text.
        """
        num_final = self._final.num_tokens if self._final and self.finish_reason is None else self._text_length
        taken, self._num_taken = range(self._num_taken, num_final), max(self._num_taken, num_final)
        return [
            ScoredToken(
                self.token_ids[position],
                text_offset + (self._final.start_of(position) if self._final else 0),
                self._commits.get(position),
            )
            for position in taken
        ]

    def draft(self) -> str:
        """The response with ▒ for every mask; once finished, the final text."""
        if self.finish_reason is not None or self._tokenizer is None:
            return self.text
        parts: list[str] = []
        run: list[int] = []
        for token_id in [*self.token_ids, self._mask_id]:
            if token_id != self._mask_id:
                run.append(token_id)
                continue
            parts += (self._tokenizer.decode(run), MASK_CHARACTER)
            run = []
        return "".join(parts[:-1])

    def _extend_text(self, final_length: int) -> str:
        new_ids, self._final_length = self.token_ids[self._final_length : final_length], final_length
        if self._final is None:
            return ""
        delta = self._final.push(new_ids)
        return delta + self._final.flush() if self.finish_reason is not None else delta
