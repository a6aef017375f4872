"""The end of a response's text, as far as the committed tokens determine it.

It is decided in one place, so that streams, usage and the early stop of a generation cannot disagree.
"""

from collections.abc import Sequence, Set

from llada_core.text.final_text import FinalText


class TextEnd:
    """Follows the tokens from the left until one ends the text.

    Attributes:
        final_length: response positions from the left that no later step changes; the end token is not counted.
        text_length: those of them that belong to the text: all of them, or the ones before a stop string.
        finish_reason: None while steps remain, then `stop` (an end token, a stop string or a complete answer) or
            `length`.
    """

    def __init__(
        self, *, mask_id: int, end_ids: Set[int], stop_text: FinalText | None, is_always_complete: bool = False
    ) -> None:
        """
        Args:
            end_ids: the tokens that end the text.
            stop_text: finds stop strings; None if there are none.
            is_always_complete: a full response is a whole answer: it finishes by `stop` without an end token too.
        """
        self._mask_id = mask_id
        self._end_ids = end_ids
        self._stop_text = stop_text
        self._reason_when_full = "stop" if is_always_complete else "length"
        self.final_length = self.text_length = 0
        self.finish_reason: str | None = None

    def advance(self, response: Sequence[int], *, is_over: bool, may_end: bool = True) -> None:
        """Extend the final text to the right, at most up to the first mask.

        Args:
            response: the response's ids as they stand.
            is_over: no step remains.
            may_end: an end token ends the text now; otherwise the text stays before it for the time being.
        """
        for token_id in response[self.final_length :]:
            if token_id == self._mask_id:
                break
            if token_id in self._end_ids:
                self.finish_reason = "stop" if may_end or is_over else None
                return
            self.final_length += 1
            self.text_length = self.final_length
            if self._stop_text is not None and self._is_stopped_by(self._stop_text, token_id):
                return
        if is_over:
            self.finish_reason = self._reason_when_full

    def _is_stopped_by(self, stop_text: FinalText, token_id: int) -> bool:
        stop_text.push([token_id])
        if stop_text.is_stopped:
            self.text_length = stop_text.num_tokens
            self.finish_reason = "stop"
        return stop_text.is_stopped
