"""Text to ids and back: plain text, chats, and decoding that never emits part of a character.

The chat format is LLaDA's own, written out here because the published Jinja file adds the assistant's header where it
must not. It is assembled from ids, so that no text a user sends can open a turn or insert a mask.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from llada_core.errors import InvalidParameterError, UnsupportedCheckpointError, shorten
from llada_core.files import read_text
from llada_core.text.byte_trie import ByteTrie, bytes_of
from llada_core.text.chat_template import ChatTemplate, Part
from llada_core.text.special_tokens import (
    BOS_TOKEN,
    END_HEADER_TOKEN,
    EOT_TOKEN,
    LLADA_TOKENS,
    START_HEADER_TOKEN,
    PublishedTokens,
)
from llada_core.text.thinking import CLOSING, OPENING, Beginning
from llada_core.text.tool_prompt import PLAIN_CALLS, Tool, ToolCall, calls_text, result_text, tools_text

# The format of `Tokenizer.encode_chat` for other programs, as a template that transformers reads.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    f"{{{{ '{START_HEADER_TOKEN}' + message['role'] + '{END_HEADER_TOKEN}\n\n' }}}}"
    f"{{{{ message['content'] | trim + '{EOT_TOKEN}' }}}}"
    "{% endfor %}{% if add_generation_prompt %}"
    f"{{{{ '{START_HEADER_TOKEN}assistant{END_HEADER_TOKEN}\n\n' }}}}"
    "{% endif %}"
)

REPLACEMENT_CHARACTER = "\ufffd"

# The largest published ones, of a quarter of a million tokens, have 35 MB.
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: `system`, `user`, `assistant` or, for the result of a call, `tool`.
        tool_calls: what the assistant calls, after the content.
        call_id: the id of the call that a result belongs to.
        thinking: what the assistant thought before the content; only templates that know thinking write it.
    """

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    thinking: str = ""


class Tokenizer:
    """A checkpoint's `tokenizer.json`.

    Two encoders share one vocabulary. The first encodes prompts and reads special tokens written out in them (people
    paste whole templates), except the mask. The second encodes chat messages, in which everything is plain text.

    Attributes:
        fingerprint: identifies the definition.
        special_tokens: the tokens that decode to no text, by id.
        chat_template: the source of the chat format, as a Jinja template.
        has_template: chats are in the format of a template, in place of LLaDA's own.
        knows_tools: the chat format has a place of its own for tools.
        call_form: how the assistant writes calls.
        thinking: how answers begin, if the chat format or the vocabulary knows thinking; otherwise None.
        mask_id: the mask's id; None if neither the file nor the published vocabulary names it.
        longest_token: the most bytes of text that one token stands for; None where that has no bound.
    """

    def __init__(
        self,
        definition: str,
        *,
        vocab_size: int | None = None,
        chat_template: ChatTemplate | None = None,
        published: PublishedTokens = LLADA_TOKENS,
    ) -> None:
        """Read a tokenizer.

        Args:
            definition: the text of a `tokenizer.json`.
            vocab_size: the checkpoint's; the published size admits the published ids for tokens that the file does not
                register.
            chat_template: replaces LLaDA's own chat format.
            published: the special tokens of the checkpoint's architecture.
        """
        self._published = published
        self._decoder = _decoder(definition)
        self._prompt_encoder = tokenizers.Tokenizer.from_str(_without_token(definition, published.mask))
        self._message_encoder = tokenizers.Tokenizer.from_str(definition)
        self._message_encoder.encode_special_tokens = True
        for encoder in (self._prompt_encoder, self._message_encoder):
            # A file that was saved for training may cut or fill up every text.
            encoder.no_truncation()
            encoder.no_padding()
        self.fingerprint = hashlib.sha256(definition.encode()).hexdigest()[:16]
        added = self._decoder.get_added_tokens_decoder()
        self.special_tokens = {token_id: token.content for token_id, token in added.items() if token.special}
        self.chat_template = CHAT_TEMPLATE if chat_template is None else chat_template.source
        self._headers: dict[str, list[int]] = {}
        self._chat_template = chat_template
        self.has_template = chat_template is not None
        self.knows_tools = chat_template is not None and chat_template.knows_tools
        self.call_form = chat_template.call_form if chat_template and self.knows_tools else PLAIN_CALLS
        knows_thinking = None not in map(self._decoder.token_to_id, (OPENING, CLOSING))
        self.thinking: Beginning | None = "free" if knows_thinking else None
        if chat_template is not None and chat_template.thinking is not None:
            self.thinking = chat_template.thinking
        self._has_published_ids = vocab_size == published.vocab_size
        self.mask_id = self.token_to_id(published.mask)
        parsed = json.loads(definition)
        self.longest_token = _longest_token(parsed)
        self._is_byte_level = _is_byte_level(parsed.get("decoder"))

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        *,
        vocab_size: int | None = None,
        chat_template: ChatTemplate | None = None,
        published: PublishedTokens = LLADA_TOKENS,
    ) -> "Tokenizer":
        """Read the folder's `tokenizer.json`.

        Raises:
            OSError: the file cannot be read.
            UnsupportedCheckpointError: the file is damaged, too large, or is no tokenizer; the message names it.
        """
        file = folder / "tokenizer.json"
        definition = read_text(file, most_bytes=_MOST_BYTES)
        try:
            tokenizer = cls(definition, vocab_size=vocab_size, chat_template=chat_template, published=published)
            # Some damage shows only with the first text.
            tokenizer.decode([*tokenizer.encode("Hello, you"), *tokenizer.encode_plain("Hello, you")])
            return tokenizer
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises no class of its own, and panics with no `Exception`
            raise UnsupportedCheckpointError(
                f"{file}: cannot be read as a tokenizer: {shorten(str(error))}; the file may be damaged or cut"
            ) from None

    def __len__(self) -> int:
        return self._decoder.get_vocab_size()

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token; None if neither the file nor the published vocabulary has it."""
        token_id: int | None = self._decoder.token_to_id(token)
        if token_id is None and self._has_published_ids:
            return self._published.ids.get(token)
        return token_id

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Encode a prompt, with the special tokens that the tokenizer itself adds. A written mask is ordinary text."""
        # As a batch: encoding a single text holds Python's lock, for seconds if the text is megabytes long.
        return self._prompt_encoder.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids

    def offsets(self, text: str) -> list[int]:
        """Return the character of the text at which each id of `encode` begins."""
        return [start for start, _ in self._prompt_encoder.encode(text).offsets]

    def encode_plain(self, text: str) -> list[int]:
        """Encode text without recognising or adding special tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode many texts as `encode_plain` does, on all cores."""
        return [encoding.ids for encoding in self._message_encoder.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> list[int]:
        """Encode a conversation in LLaDA's chat format (the Llama-3 layout), or in the format of the given template.

        LLaDA's format is BOS, then header, content and EoT of each message. In a format that knows no tools, those and
        their calls and results are written in the plain form of `tool_prompt`.

        Args:
            tools: the functions that the assistant may call.
            add_generation_prompt: end with the assistant's header, so that a reply follows.
            continue_final_message: leave the last message open, so that its continuation follows.

        Raises:
            InvalidParameterError: the vocabulary has no header or end-of-turn tokens; a template refuses the messages.
        """
        if not self.knows_tools:
            messages = _in_plain_form(messages, tools)
        if self._chat_template is not None:
            parts = self._chat_template.render(
                messages,
                tools if self.knows_tools else (),
                bos_token=self._name_of(self._published.bos),
                eos_token=self._name_of(self._published.eos),
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
            )
            encoded = iter(self.encode_batch([part.text for part in parts if part.is_content]))
            # A template writes the same around every message.
            between = {text: self.encode(text, add_special_tokens=False) for text in _texts_between(parts)}
            return [
                token_id for part in parts for token_id in (next(encoded) if part.is_content else between[part.text])
            ]
        ids, end_of_turn = [self._template_id(BOS_TOKEN)], self._template_id(EOT_TOKEN)
        contents = self.encode_batch([message.content.strip() for message in messages])
        for message, content in zip(messages, contents, strict=True):
            ids += [*self.header(message.role), *content, end_of_turn]
        if continue_final_message:
            return ids[:-1]
        if add_generation_prompt:
            ids += self.header("assistant")
        return ids

    def header(self, role: str) -> list[int]:
        """Return the ids that open a turn."""
        if role not in self._headers:
            start, end = self._template_id(START_HEADER_TOKEN), self._template_id(END_HEADER_TOKEN)
            self._headers[role] = [start, *self.encode_plain(role), end, *self.encode_plain("\n\n")]
        return self._headers[role]

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Decode ids; special tokens are left out or named, bytes that are not UTF-8 become U+FFFD."""
        # As a batch: decoding a single list holds Python's lock.
        return self._decoder.decode_batch([list(ids)], skip_special_tokens=skip_special_tokens)[0]

    def token_text(self, token_id: int) -> str:
        """Return the text of one token, or the name of a special one; half a character becomes U+FFFD."""
        return self.decode([token_id], skip_special_tokens=False)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the tokens as the vocabulary writes them, "Ġthere" for " there"; an unknown id becomes empty."""
        return [self._decoder.id_to_token(token_id) or "" for token_id in ids]

    @cached_property
    def byte_trie(self) -> ByteTrie | None:
        """The bytes that each token stands for, special ones left out; None if the vocabulary is not byte-level."""
        if not self._is_byte_level:
            return None
        last = max(self._decoder.get_vocab().values(), default=-1)
        pieces = self.pieces(range(last + 1))
        return ByteTrie.of(
            [b"" if token_id in self.special_tokens else bytes_of(piece) for token_id, piece in enumerate(pieces)]
        )

    def _name_of(self, token: str | None) -> str:
        """Return the token as a template writes it; empty if the vocabulary lacks it."""
        return token if token is not None and self.token_to_id(token) is not None else ""

    def _template_id(self, token: str) -> int:
        token_id = self.token_to_id(token)
        if token_id is None:
            raise InvalidParameterError(
                f"messages: this model's tokenizer has no {token}, which chat needs; send a prompt instead",
                "messages",
            )
        return token_id


class IncrementalDecoder:
    """Decodes ids as they become final. Text once returned never changes; an incomplete character is held back.

    The parts add up to `Tokenizer.decode` of all ids. The cost does not grow with the text: only the ids since the last
    complete character are decoded again.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._context: list[int] = []  # ids already returned as text, kept because decoding may join them with the next
        self._pending: list[int] = []

    def push(self, ids: Iterable[int]) -> str:
        """Take in the next ids; return the text that they complete, empty while a character is unfinished."""
        self._pending += [token_id for token_id in ids if token_id not in self._tokenizer.special_tokens]
        text = self._pending_text()
        if not text or text.endswith(REPLACEMENT_CHARACTER):
            return ""
        return self._release(text)

    @property
    def is_waiting(self) -> bool:
        """Whether tokens were pushed whose text is not complete yet."""
        return bool(self._pending)

    def flush(self) -> str:
        """Return the remaining text; bytes that never became a character are U+FFFD."""
        return self._release(self._pending_text())

    def _pending_text(self) -> str:
        before = self._tokenizer.decode(self._context)
        return self._tokenizer.decode(self._context + self._pending)[len(before) :]

    def _release(self, text: str) -> str:
        self._context, self._pending = self._pending, []
        return text


def _in_plain_form(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """Write tools, calls and results as texts of the three roles that every format has."""
    plain = [_plain(message) for message in messages]
    if not tools:
        return plain
    if plain and plain[0].role == "system":
        return [Message("system", f"{plain[0].content.rstrip()}\n\n{tools_text(tools)}"), *plain[1:]]
    return [Message("system", tools_text(tools)), *plain]


def _plain(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", result_text(message.content.strip()))
    if message.tool_calls:
        parts = (message.content.strip(), calls_text(message.tool_calls))
        return Message(message.role, "\n".join(part for part in parts if part), thinking=message.thinking)
    return message


def _texts_between(parts: Iterable[Part]) -> set[str]:
    return {part.text for part in parts if not part.is_content}


def _decoder(definition: str) -> tokenizers.Tokenizer:
    """Read the tokenizer that decodes. The tags of thinking are text, even where a file registers them as special."""
    decoder = tokenizers.Tokenizer.from_str(definition)
    added = decoder.get_added_tokens_decoder().values()
    if not any(token.special and token.content in (OPENING, CLOSING) for token in added):
        return decoder
    parsed = json.loads(definition)
    for token in parsed["added_tokens"]:
        token["special"] = token["special"] and token["content"] not in (OPENING, CLOSING)
    return tokenizers.Tokenizer.from_str(json.dumps(parsed))


def _without_token(definition: str, content: str) -> str:
    parsed = json.loads(definition)
    parsed["added_tokens"] = [token for token in parsed["added_tokens"] if token["content"] != content]
    return json.dumps(parsed)


def _is_byte_level(decoder: Mapping[str, Any] | None) -> bool:
    """Whether the text of tokens is that of their bytes, one after another."""
    parts = (decoder or {}).get("decoders", [decoder or {}])
    return bool(parts) and all(part.get("type") == "ByteLevel" for part in parts)


def _longest_token(definition: Mapping[str, Any]) -> int | None:
    """The bytes of the longest token, if every byte of a text is part of a token.

    That is so in a byte-level vocabulary, which writes one character for each byte, unless a normaliser shortens the
    text or an added token takes the spaces around it along.
    """
    pre_tokenizer = definition.get("pre_tokenizer") or {}
    kinds = {part["type"] for part in pre_tokenizer.get("pretokenizers", [pre_tokenizer]) if "type" in part}
    added = definition.get("added_tokens") or []
    takes_spaces = any(token.get("lstrip") or token.get("rstrip") for token in added)
    vocabulary = definition["model"].get("vocab")
    if "ByteLevel" not in kinds or definition.get("normalizer") or takes_spaces or not isinstance(vocabulary, dict):
        return None
    return max((*map(len, vocabulary), *(len(token["content"].encode()) for token in added)), default=None)
