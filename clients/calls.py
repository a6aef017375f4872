"""What each method of the clients sends, and what it makes of the answer; how it is sent is the clients' business."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

T = TypeVar("T")
Health = Literal["ready", "alive", "gone"]
Prompt = str | Sequence[int]
Messages = str | Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap of so many tokens between two texts."""

    length: int


@dataclass(frozen=True, slots=True)
class Fork:
    """A frame of a run that the server still keeps, and what is changed in it.

    Attributes:
        id: the run's, from its `Start`.
        step: the frame before the step of this number.
        remask: positions that become masks.
        set: position → text or token ids written from there on.
    """

    id: str
    step: int
    remask: Sequence[int] = ()
    set: Mapping[int, Prompt] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Completion:
    """A text and how it came about.

    Attributes:
        finish_reason: `stop` or `length`.
        reasoning: the thinking before the text, on models that think; None if there is none.
        usage: tokens, `denoising_steps` and `forward_passes`.
        generation_params: the settings in use, with the seed.
        raw: the whole answer.
    """

    text: str
    finish_reason: str
    usage: Mapping[str, Any]
    generation_params: Mapping[str, Any]
    raw: Mapping[str, Any]
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """An estimate of log p(completion | prompt), in nats; `stderr` is None for a single draw."""

    log_likelihood: float
    stderr: float | None
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Model:
    """The model that a server serves."""

    id: str
    max_model_len: int
    mask_token_id: int
    vocab_size: int


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request, and the function that reads its answer."""

    method: str
    path: str
    body: Mapping[str, Any] | None
    parse: Callable[[Any], T]


def complete(prompt: Prompt, fields: Mapping[str, Any]) -> Call[Completion]:
    return Call("POST", "/v1/completions", {"prompt": _list(prompt), **fields}, _completion)


def chat(messages: Messages, fields: Mapping[str, Any]) -> Call[Completion]:
    return Call("POST", "/v1/chat/completions", {"messages": turns(messages), **fields}, _completion)


def score(prompt: Prompt, completion: Prompt, fields: Mapping[str, Any]) -> Call[Score]:
    body = {"prompt": _list(prompt), "completion": _list(completion), **fields}
    return Call("POST", "/v1/score", body, _score)


def tokenize(text: str) -> Call[list[int]]:
    return Call("POST", "/tokenize", {"prompt": text}, lambda answer: list(answer["tokens"]))


def token_texts(text: str) -> Call[list[tuple[int, str]]]:
    body = {"prompt": text, "add_special_tokens": False, "return_token_strs": True}
    return Call("POST", "/tokenize", body, lambda answer: list(map(_token, answer["tokens"], answer["token_strs"])))


def models() -> Call[list[Model]]:
    return Call("GET", "/v1/models", None, lambda answer: [_model(item) for item in answer["data"]])


def denoise_body(
    prompt: Prompt | None,
    messages: Messages | None,
    canvas: Sequence[Prompt | Gap] | None,
    fork: Fork | None,
    fields: Mapping[str, Any],
) -> dict[str, Any]:
    """The body of `/v1/denoise`.

    Raises:
        TypeError: not exactly one of prompt, messages, canvas and fork.
        ValueError: no step, whose answer is no stream.
    """
    if fields.get("steps") == 0:
        raise ValueError("steps is 0, which reads masks and streams nothing; it must be at least 1")
    given = {
        "prompt": None if prompt is None else _list(prompt),
        "messages": None if messages is None else turns(messages),
        "canvas": None if canvas is None else [{"mask": s.length} if isinstance(s, Gap) else s for s in canvas],
        "fork": None if fork is None else _fork(fork),
    }
    present = {name: value for name, value in given.items() if value is not None}
    if len(present) != 1:
        raise TypeError(f"give exactly one of {', '.join(given)}, not {sorted(present) or 'none of them'}")
    return {**present, **fields}


def turns(messages: Messages) -> list[dict[str, str]]:
    """The turns of a chat; a text is a chat of one."""
    return [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(turn) for turn in messages]


def _token(token_id: int, name: str) -> tuple[int, str]:
    """A token's id and its text, from how a byte-level vocabulary writes it: every byte is one character."""
    values = [_BYTES.get(character) for character in name]
    known = [value for value in values if value is not None]
    return token_id, bytes(known).decode(errors="replace") if len(known) == len(values) else name


def _alphabet() -> dict[str, int]:
    """GPT-2's: printable bytes of Latin-1 stand for themselves, the others follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTES = _alphabet()


def _completion(answer: Mapping[str, Any]) -> Completion:
    choice = answer["choices"][0]
    message = choice.get("message", {})
    return Completion(
        (message.get("content") or "") if message else choice["text"],
        choice["finish_reason"],
        answer["usage"],
        answer["generation_params"],
        answer,
        message.get("reasoning_content"),
    )


def _score(answer: Mapping[str, Any]) -> Score:
    return Score(answer["log_likelihood"], answer["stderr"], answer["num_tokens"])


def _model(item: Mapping[str, Any]) -> Model:
    return Model(item["id"], item["max_model_len"], item["mask_token_id"], item["vocab_size"])


def _fork(fork: Fork) -> dict[str, Any]:
    written = {str(position): _list(text) for position, text in fork.set.items()}
    return {"id": fork.id, "step": fork.step, "remask": list(fork.remask), "set": written}


def _list(prompt: Prompt) -> str | list[int]:
    return prompt if isinstance(prompt, str) else list(prompt)
