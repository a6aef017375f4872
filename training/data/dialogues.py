"""What a record of dialogue says, and nothing less: turns, system prompts, earlier turns, which turns are trained.

What cannot be trained as it is written makes a record unusable (a tool call, an image, a mark between yes and no). What
does not change the text is left out and counted by name, so that nothing disappears unseen.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal

TrainOn = Literal["all", "last"]

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}
_TOOL_ROLES = {"tool", "function", "function_call", "observation", "ipython"}
# Marks of single turns: OpenAI's, axolotl's and others'.
_MARKS = ("weight", "loss", "train", "training")
# Parts of a conversation that the chat format has no place for.
_TOOL_KEYS = ("tools", "functions", "tool_calls", "function_call", "tool_call_id")
_SYSTEM_KEYS = ("system", "system_prompt")
# The assistant's thinking before its content: DeepSeek's name and vLLM's newer one.
_THINKING_KEYS = ("reasoning_content", "reasoning")
# Where a record comes from and what it is about; none of it is said in the dialogue.
_NOTES = {
    "id", "_id", "idx", "index", "uid", "uuid", "hash", "conversation_id", "conversation_hash", "dialogue_id",
    "message_id", "parent_id", "turn_id", "prompt_id", "source", "dataset", "dataset_name", "subset", "split", "origin",
    "url", "license", "author", "category", "topic", "task", "task_type", "tag", "tags", "lang", "language", "model",
    "model_name", "created", "created_at", "timestamp", "date", "time", "score", "rating", "quality", "difficulty",
    "length", "num_turns", "num_tokens", "token_count", "meta", "metadata", "score_chosen", "score_rejected",
    "chosen_score", "rejected_score", "chosen_rating", "rejected_rating", "chosen_model", "rejected_model", "margin",
}  # fmt: skip


class UnusableError(Exception):
    """A record that its format cannot read; the message is the rule it breaks."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a training dialogue.

    Attributes:
        role: `system`, `user` or `assistant`.
        content: the text exactly as it is tokenised.
        is_target: whether the model is trained to write it; only an assistant's can be.
        thinking: what the assistant thought before the content, where the chat format writes that.
    """

    role: str
    content: str
    is_target: bool = False
    thinking: str = ""


Dialogue = list[Turn]


@dataclass(frozen=True, slots=True)
class Preference:
    """Two dialogues that differ in their last turn, the assistant's, and no other is a target."""

    chosen: Dialogue
    rejected: Dialogue


@dataclass(frozen=True, slots=True)
class DialogueRules:
    """What a dialogue means where its record leaves it open.

    Attributes:
        train_on: which assistant turns are targets, unless a turn says otherwise.
        allow_empty_answers: whether an assistant turn without text teaches to say nothing, or makes a record unusable.
    """

    train_on: TrainOn = "all"
    allow_empty_answers: bool = False


class DialogueReader:
    """Reads records of the dialogue formats.

    Attributes:
        left_out: how often each key was left out that says something about a record or a turn.
    """

    def __init__(self, rules: DialogueRules | None = None, *, writes_thinking: bool = False) -> None:
        """
        Args:
            writes_thinking: whether the chat format writes the assistant's thinking; otherwise it is left out.
        """
        self.left_out: Counter[str] = Counter()
        self._rules = rules or DialogueRules()
        self._writes_thinking = writes_thinking

    def messages(self, record: Mapping[str, Any]) -> Dialogue:
        """Read a list of turns under `messages` or `conversations`; the last one is the assistant's."""
        key = "messages" if "messages" in record else "conversations"
        turns = self._turns(record.get(key), key)
        if turns[-1].role != "assistant":
            raise UnusableError(f"the last message is by {turns[-1].role!r}; it must be by 'assistant'")
        return self._finished(record, {key}, turns)

    def alpaca(self, record: Mapping[str, Any]) -> Dialogue:
        """Read `instruction`, `input` and `output`, after the pairs of `history`."""
        turns = self._history(record.get("history"))
        question = text_of(record, "instruction")
        if record.get("input"):
            question = f"{question}\n\n{text_of(record, 'input')}"
        turns += [Turn("user", question.strip()), self._answer(_string(record.get("output"), "output"), "output")]
        # Stanford's records repeat everything under "text".
        return self._finished(record, {"instruction", "input", "output", "history", "text"}, turns)

    def completion(self, record: Mapping[str, Any]) -> Dialogue:
        """Read `prompt` and `completion`: two texts, or two lists of turns, of which only the second is trained."""
        prompt, completion = record.get("prompt"), record.get("completion")
        if isinstance(prompt, list) or isinstance(completion, list):
            turns = [*_as_history(self._turns(prompt, "prompt")), *self._turns(completion, "completion")]
            if turns[-1].role != "assistant":
                raise UnusableError(f"the last turn of completion is by {turns[-1].role!r}; it must be by 'assistant'")
        else:
            answer = self._answer(_string(completion, "completion"), "completion")
            turns = [Turn("user", text_of(record, "prompt").strip()), answer]
        return self._finished(record, {"prompt", "completion"}, turns)

    def preference(self, record: Mapping[str, Any]) -> Preference:
        """Read two answers under `chosen` and `rejected`: each a text, a turn, or turns.

        What they answer is `prompt` (a text, or turns), `conversations` or `messages`, or the turns both begin with.
        """
        earlier_key = next((key for key in ("prompt", "conversations", "messages") if record.get(key)), None)
        earlier = [] if earlier_key is None else self._earlier(record, earlier_key)
        chosen, rejected = (self._preferred(record, key, earlier) for key in ("chosen", "rejected"))
        if _said(chosen[:-1]) != _said(rejected[:-1]):
            raise UnusableError("chosen and rejected answer different prompts; only their last turns may differ")
        if _said(chosen) == _said(rejected):
            raise UnusableError("chosen and rejected are the same answer")
        turns = self._finished(record, {"chosen", "rejected", *([earlier_key] if earlier_key else [])}, chosen)
        prompt = _as_history(turns[:-1])
        return Preference([*prompt, chosen[-1]], [*prompt, rejected[-1]])

    def _earlier(self, record: Mapping[str, Any], key: str) -> Dialogue:
        """The turns that both answers of a preference follow."""
        if key == "prompt" and isinstance(record[key], str):
            return [Turn("user", text_of(record, key).strip())]
        return self._turns(record[key], key)

    def _preferred(self, record: Mapping[str, Any], key: str, earlier: Dialogue) -> Dialogue:
        """The dialogue that ends with one answer of a preference."""
        answer = record.get(key)
        if isinstance(answer, str):
            turns = [self._answer(_string(answer, key), key)]
        elif isinstance(answer, Mapping):
            turns = [self._turn(answer, key)]
        else:
            turns = self._turns(answer, key)
        if turns[-1].role != "assistant":
            raise UnusableError(f"the last turn of {key} is by {turns[-1].role!r}; it must be by 'assistant'")
        if not turns[-1].is_target:
            raise UnusableError(f"the last turn of {key} is marked not to be trained; it is what is compared")
        turns = _continued(earlier, turns, key)
        if len(turns) < 2:
            raise UnusableError(f'{key} answers nothing; the record needs a "prompt", or {key} the turns before')
        return turns

    def prompt(self, record: Mapping[str, Any]) -> str | Dialogue:
        """Read a prompt for `generate`: the text of `prompt`, or `messages`, of which the last is the user's."""
        if "messages" not in record:
            text = text_of(record, "prompt")
            turns = self._with_system(record, [Turn("user", text)])
            return text if len(turns) == 1 else turns
        turns = self._turns(record["messages"], "messages")
        if turns[-1].role != "user":
            raise UnusableError(f"the last message is by {turns[-1].role!r}; it must be by 'user'")
        return self._with_system(record, turns)

    def leave_out(self, value: Mapping[str, Any], keys: Iterable[str], prefix: str = "") -> None:
        """Count the keys of a record or turn but those that are read, unless they are empty or only notes."""
        for key in value.keys() - set(keys) - _NOTES:
            if not _is_empty(value[key]):
                self.left_out[f"{prefix}{key}"] += 1

    def _finished(self, record: Mapping[str, Any], keys: set[str], turns: Dialogue) -> Dialogue:
        """The dialogue with the record's system prompt, after a check that nothing else in it was said."""
        turns = self._with_system(record, turns)
        _refuse_tools(record, "")
        self.leave_out(record, keys | set(_SYSTEM_KEYS) | set(_TOOL_KEYS))
        if self._rules.train_on == "last":
            turns = [*_as_history(turns[:-1]), turns[-1]]
        return turns

    def _turns(self, turns: object, name: str) -> Dialogue:
        turns = _parsed(turns)
        if not isinstance(turns, list) or not turns:
            raise UnusableError(f'needs a non-empty list of turns "{name}"')
        return [self._turn(turn, f"{name}[{index}]") for index, turn in enumerate(turns)]

    def _turn(self, turn: object, place: str) -> Turn:
        if not isinstance(turn, Mapping):
            raise UnusableError(f"{place} is {_named(turn)}; it must be an object")
        role_key, content_key = ("from", "value") if turn.get("role") is None else ("role", "content")
        sender = turn.get(role_key)
        if sender is None or (content_key not in turn and not any(turn.get(key) for key in _TOOL_KEYS)):
            raise UnusableError(
                f'{place} has the keys {sorted(map(str, turn))}; it needs "role" and "content", or "from" and "value"'
            )
        _refuse_tools(turn, f"{place}.")
        if isinstance(sender, str) and sender in _TOOL_ROLES:
            raise UnusableError(f'{place} is by "{sender}"; the chat format has no turns of tools')
        role = _ROLES.get(sender) if isinstance(sender, str) else None
        if role is None:
            raise UnusableError(f"{place} is by {_named(sender)}; known are {', '.join(_ROLES)}")
        content = _joined(turn[content_key], f"{place}.{content_key}").strip()
        mark = _mark(turn, place)
        if mark and role != "assistant":
            raise UnusableError(f"{place} is by {role!r} and marked to be trained; only the assistant's turns can be")
        has_thinking = self._writes_thinking and role == "assistant"
        read = {role_key, content_key, *_MARKS, *_TOOL_KEYS, *(_THINKING_KEYS if has_thinking else ())}
        self.leave_out(turn, read, f"{_name_of_list(place)}[].")
        if role != "assistant":
            return Turn(role, content)
        thinking = _thinking(turn, place) if has_thinking else ""
        return replace(self._answer(content, place), is_target=mark is not False, thinking=thinking)

    def _answer(self, text: str, place: str) -> Turn:
        if not text.strip() and not self._rules.allow_empty_answers:
            raise UnusableError(
                f"{place}: the answer is empty; --allow-empty-answers trains it as an answer without text"
            )
        return Turn("assistant", text, is_target=True)

    def _history(self, history: object) -> Dialogue:
        turns: Dialogue = []
        history = _parsed(history)
        for index, pair in enumerate(history if isinstance(history, list) else [history] if history else []):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise UnusableError(f"history[{index}] is {_named(pair)}; it must be a pair of question and answer")
            question, answer = (_string(text, f"history[{index}][{side}]").strip() for side, text in enumerate(pair))
            turns += [Turn("user", question), self._answer(answer, f"history[{index}][1]")]
        return turns

    def _with_system(self, record: Mapping[str, Any], turns: Dialogue) -> Dialogue:
        for key in _SYSTEM_KEYS:
            if record.get(key):
                content = _joined(record[key], key).strip()
                if turns[0].role != "system":
                    return [Turn("system", content), *turns]
                if turns[0].content != content:
                    raise UnusableError(f"{key}: given beside a system turn that says something else")
        return turns


def _as_history(turns: Dialogue) -> Dialogue:
    """The turns, none of them a target."""
    return [replace(turn, is_target=False) for turn in turns]


def _said(turns: Dialogue) -> list[tuple[str, str, str]]:
    """Who says what, after what thinking."""
    return [(turn.role, turn.content, turn.thinking) for turn in turns]


def _continued(earlier: Dialogue, turns: Dialogue, name: str) -> Dialogue:
    """A prompt and what follows it; some data repeats the prompt there, with or without its system turn."""
    system = list(takewhile(_is_system, earlier))
    if system and not _is_system(turns[0]) and turns[0].role != "assistant":
        turns = [*system, *turns]
    start = 0 if system else len(list(takewhile(_is_system, turns)))
    if earlier and _said(turns[start : start + len(earlier)]) == _said(earlier):
        return turns
    if earlier and turns[0].role != "assistant":
        raise UnusableError(f"{name} does not begin with the prompt that is given beside it")
    return [*earlier, *turns]


def _is_system(turn: Turn) -> bool:
    return turn.role == "system"


def text_of(record: Mapping[str, Any], key: str) -> str:
    """The text under a key, which must not be empty.

    Raises:
        UnusableError: there is none, or it is something else.
    """
    text = record.get(key)
    if not isinstance(text, str) or not text:
        raise UnusableError(f'needs a non-empty string "{key}"')
    return unicode_only(text)


def unicode_only(text: str) -> str:
    """Refuse half of a surrogate pair, which JSON can express although it is not a character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnusableError(f"holds half of a surrogate pair (character {error.start})") from None
    return text


def _thinking(turn: Mapping[str, Any], place: str) -> str:
    """The thinking of an assistant's turn, without the line breaks around it, which are the template's."""
    texts = {key: _string(turn[key], f"{place}.{key}") for key in _THINKING_KEYS if not _is_empty(turn.get(key))}
    if len(set(texts.values())) > 1:
        raise UnusableError(f"{place}: reasoning and reasoning_content say different things")
    return next(iter(texts.values()), "").strip("\n")


def _name_of_list(place: str) -> str:
    """The name of the list in a turn's place: `messages` of `messages[3]`."""
    return place.split("[", 1)[0]


def _string(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise UnusableError(f'needs a string "{name}"')
    return unicode_only(value)


def _parsed(value: object) -> object:
    """The value; tables often hold lists as JSON text."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def _joined(content: object, place: str) -> str:
    """The text of a content, which may be cut into parts, as the server joins them."""
    if not isinstance(content, list):
        if not isinstance(content, str):
            raise UnusableError(f"{place} is {_named(content)}; it must be text, or a list of text parts")
        return unicode_only(content)
    texts = []
    for index, part in enumerate(content):
        match part:
            case str(text) | {"type": "text" | "input_text" | "output_text", "text": str(text)}:
                texts.append(unicode_only(text))
            case {"type": str(kind)}:
                raise UnusableError(f'{place}[{index}] is of type "{kind}"; only text can be trained')
            case _:
                raise UnusableError(f"{place}[{index}] is {_named(part)}; it must be a text part")
    return "".join(texts)


def _mark(turn: Mapping[str, Any], place: str) -> bool | None:
    """Whether a turn says that it is trained; None if it says nothing."""
    marks = {}
    for key in _MARKS:
        if (mark := turn.get(key)) is not None:
            if not isinstance(mark, bool | int | float) or mark not in (0, 1):
                raise UnusableError(f"{place}.{key} is {_named(mark)}; it must be true or false, 1 or 0")
            marks[key] = bool(mark)
    if len(set(marks.values())) > 1:
        raise UnusableError(f"{place}: {' and '.join(marks)} say different things")
    return next(iter(marks.values()), None)


def _refuse_tools(value: Mapping[str, Any], prefix: str) -> None:
    for key in _TOOL_KEYS:
        if not _is_empty(value.get(key)):
            raise UnusableError(
                f"{prefix}{key}: the chat format has no place for tools; remove it to train without them"
            )


def _is_empty(value: object) -> bool:
    """Whether a value says nothing; some datasets write an empty list as text."""
    return value is None or value is False or value in ("", "[]", "{}", "null") or value in ([], {})


def _named(value: object) -> str:
    """A value as an error shows it, shortened."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
