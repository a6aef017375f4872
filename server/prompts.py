"""Turns text into token ids: prompts, conversations, segments of a canvas."""

from collections.abc import Sequence
from dataclasses import replace

from llada_core.decisions.labels import Labels
from llada_core.decisions.prompts import EncodedQuestion, encode_questions
from llada_core.errors import InvalidParameterError
from llada_core.text.thinking import Beginning, ThinkingForm, divided
from llada_core.text.tokenizer import Message, Tokenizer
from llada_core.text.tool_prompt import Tool, calls_text
from server.http.api_error import bad_request
from server.schemas.conversation import ChatFields, ChatMessage, turns_of
from server.schemas.decisions import AnyDecisionRequest, Asked
from server.turns import Turns

# Encoding takes hundreds of times the memory of the text: few at once, whatever the number of requests.
_AT_ONCE = 2


class Prompts:
    """Encodes what requests send as text; token ids pass through unchanged.

    Encoding runs in worker threads: a long text takes a while, and the event loop must not wait for it. A text that
    cannot fit, however it is divided into tokens, is refused before it is encoded.

    Attributes:
        tokenizer: None if the model's folder has none; then only token ids can be sent.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        *,
        max_model_len: int,
        max_waiting: int,
        thinking: Beginning | None = None,
    ) -> None:
        """
        Args:
            max_model_len: tokens that the model can take; longer texts are refused.
            max_waiting: texts that may wait to be encoded; more are refused as if the queue were full.
            thinking: how the model's answers begin; None if they have no thinking that is told apart.
        """
        self.tokenizer = tokenizer
        self._thinking = thinking
        self._max_model_len = max_model_len
        self._turns = Turns(at_once=_AT_ONCE, max_waiting=max_waiting)

    async def encode_prompt(self, prompt: str | list[int]) -> list[int]:
        """The ids of a prompt sent as text or as ids."""
        if isinstance(prompt, list):
            return prompt
        return await self.encode_text(prompt)

    async def encode_text(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a prompt sent as text.

        Raises:
            APIError: the text is too long, or too many wait.
        """
        tokenizer = self.required_tokenizer("prompt")
        self._require_room(len(text), "prompt")
        return await self._turns.run(lambda: tokenizer.encode(text, add_special_tokens=add_special_tokens))

    async def encode_messages(
        self,
        messages: list[ChatMessage],
        fields: ChatFields,
        tools: Sequence[Tool] = (),
        *,
        field_name: str = "messages",
    ) -> list[int]:
        """The ids of a conversation in the chat template.

        Args:
            field_name: the field that the conversation was read from, for errors.

        Raises:
            APIError: the texts are too long together, or too many wait; a result without a call; thinking that the
                model does not know.
            InvalidParameterError: the template refuses the turns.
        """
        tokenizer = self.required_tokenizer(field_name)
        turns = self._thinking_apart(messages, fields, field_name)
        # Templates leave out the spaces around a message.
        num_characters = sum(
            len(turn.content.strip()) + len(turn.thinking) + len(calls_text(turn.tool_calls)) for turn in turns
        )
        self._require_room(num_characters, field_name)
        try:
            return await self._turns.run(
                lambda: tokenizer.encode_chat(
                    turns,
                    tools,
                    add_generation_prompt=fields.add_generation_prompt,
                    continue_final_message=fields.continue_final_message,
                )
            )
        except InvalidParameterError as error:
            # The core calls every conversation so.
            if error.field != "messages":
                raise
            raise InvalidParameterError(str(error).replace("messages", field_name, 1), field_name) from None

    def thinking_after(
        self, messages: Sequence[ChatMessage], fields: ChatFields, interruption: str = ""
    ) -> ThinkingForm | None:
        """Where thinking may be in the answer to a conversation; None if answers have none that is told apart.

        Args:
            interruption: see `ThinkingForm`.
        """
        if self._thinking is None:
            return None
        if not fields.continue_final_message:
            return ThinkingForm(self._thinking if fields.add_generation_prompt else "free", interruption)
        if messages[-1].thinking:
            return ThinkingForm("closed")
        return ThinkingForm("free", interruption, messages[-1].text)

    async def encode_questions(
        self, body: AnyDecisionRequest, asked: Sequence[Asked], labels: Labels
    ) -> list[EncodedQuestion]:
        """The ids of questions about an input.

        Raises:
            APIError: the texts of a question and the input are too long together, or too many wait.
        """
        tokenizer = self.required_tokenizer(body.input_field)
        conversation = body.conversation()
        input_length = sum(len(turn.content.strip()) for turn in conversation)
        self._require_room(input_length, body.input_field)
        for each in asked:
            length = input_length + each.question.num_characters
            self._require_room(length, "questions", name=f"{body.input_field} with {each.place}")
        questions = [each.question for each in asked]
        return await self._turns.run(lambda: encode_questions(tokenizer, conversation, questions, labels))

    async def encode_segment(self, segment: str | list[int], field_name: str) -> list[int]:
        """The ids of a piece of a canvas: no token is added, and no text is read as a special token.

        Raises:
            APIError: the text is too long, or too many wait.
        """
        if isinstance(segment, list):
            return segment
        tokenizer = self.required_tokenizer(field_name)
        self._require_room(len(segment), field_name)
        return await self._turns.run(lambda: tokenizer.encode_plain(segment))

    def text_of(self, prompt: str | list[int]) -> str:
        """The prompt as display text; empty if it was sent as ids and there is no tokenizer."""
        if isinstance(prompt, str):
            return prompt
        return self.tokenizer.decode(prompt) if self.tokenizer else ""

    def required_tokenizer(self, field_name: str) -> Tokenizer:
        """The tokenizer, which the text in `field_name` needs.

        Raises:
            InvalidParameterError: the model's folder has no tokenizer.
        """
        if self.tokenizer is None:
            raise InvalidParameterError(
                f"{field_name} is text, and this model's folder has no tokenizer; send `prompt` as token ids",
                field_name,
            )
        return self.tokenizer

    def _thinking_apart(self, messages: Sequence[ChatMessage], fields: ChatFields, field_name: str) -> list[Message]:
        """The conversation with the assistant's thinking apart, wherever the client has sent it.

        Raises:
            APIError: a result without a call; thinking that the model does not know.
        """
        turns = turns_of(messages)
        if self._thinking is None:
            for index, message in enumerate(messages):
                if message.thinking:
                    # Only a conversation of this shape has the turns that the client sent.
                    place = f"messages.{index}.{message.thinking_field}"
                    raise bad_request(
                        f"{place if field_name == 'messages' else f'thinking in {field_name}'} has "
                        f"{len(message.thinking)} characters; it must be absent or empty: this model's chat format "
                        "knows no thinking",
                        field_name,
                    )
            return turns
        # A turn that is continued stays as it was written.
        settled = turns[:-1] if fields.continue_final_message else turns
        return [*map(_with_thinking_apart, settled), *turns[len(settled) :]]

    def _require_room(self, num_characters: int, field_name: str, *, name: str | None = None) -> None:
        """Refuse a text that is too long in tokens even if all of them were the longest one.

        Args:
            name: what the error calls the text; None for the field's name.
        """
        longest = self.required_tokenizer(field_name).longest_token
        if longest is not None and num_characters > self._max_model_len * longest:
            raise bad_request(
                f"{name or field_name} has {num_characters} characters; max_model_len is {self._max_model_len} tokens, "
                f"which stand for at most {longest} bytes each",
                field_name,
                "context_length_exceeded",
            )


def _with_thinking_apart(turn: Message) -> Message:
    if turn.role != "assistant" or turn.thinking:
        return turn
    thinking, content = divided(turn.content)
    return replace(turn, content=content, thinking=thinking)
