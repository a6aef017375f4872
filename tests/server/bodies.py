"""Bodies of megabytes in every shape that JSON has, and what a server is like while it handles one."""

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from server.http.api_error import MAX_BODY_BYTES

# Room for the rest of the body.
_SIZE = MAX_BODY_BYTES - 1024


def repeated(piece: str, *, brackets: str = "[]", size: int = _SIZE) -> str:
    """JSON of about `size` bytes: the piece as often as it fits, between commas."""
    count = (size - 2) // (len(piece.encode()) + 1)
    return brackets[0] + ",".join([piece] * count) + brackets[1]


def numbered(start: str, end: str, *, brackets: str, count: int) -> str:
    """JSON of `count` pieces that differ by a number."""
    return brackets[0] + ",".join(f"{start}{number}{end}" for number in range(count)) + brackets[1]


def text(piece: str) -> str:
    """A JSON string of about the largest size, from a piece that is written as it stands."""
    return f'"{piece * ((_SIZE - 2) // len(piece.encode()))}"'


# What a client may put into any field.
VALUES = {
    "whole numbers": repeated("1"),
    "floats": repeated("2.0"),
    "large exponents": repeated("1e308"),
    "infinite numbers": repeated("1e999"),
    "long numbers": repeated("1" * 4000),
    "one number of megabytes": "1" * _SIZE,
    "one number of many decimals": "0." + "1" * (_SIZE - 2),
    "booleans": repeated("true"),
    "nulls": repeated("null"),
    "empty strings": repeated('""'),
    "short strings": repeated('"a"'),
    "strings of 1,000": repeated(f'"{"a " * 500}"'),
    "empty lists": repeated("[]"),
    "lists of one": repeated("[1]"),
    "empty objects": repeated("{}"),
    "small objects": repeated('{"a":1}'),
    "text parts": repeated('{"type":"text","text":""}'),
    "messages": repeated('{"role":"user","content":""}'),
    "messages of parts": repeated('{"role":"user","content":[{"type":"text","text":"a"}]}'),
    "a message of parts": f'[{{"role":"user","content":{repeated(json.dumps({"type": "text", "text": "a"}))}}}]',
    "a message of text": f'[{{"role":"user","content":"{"a b " * (_SIZE // 4 - 50)}"}}]',
    "lists of 500": repeated(f"[{','.join(['1'] * 500)}]"),
    "gaps": repeated('{"mask":1}'),
    "number keys": numbered('"', '":1', brackets="{}", count=380_000),
    "number keys of texts": numbered('"', '":"a"', brackets="{}", count=320_000),
    "word keys": numbered('"k', '":1', brackets="{}", count=350_000),
    "one key again and again": repeated('"a":1', brackets="{}"),
    "one key of megabytes": "{" + text("k") + ":1}",
    "choices": f'{{"choice":{repeated(json.dumps("a"), size=_SIZE - 20)}}}',
    "a choice of megabytes": f'{{"choice":["a",{text("a ")[:-40]}"]}}',
    "letters": text("a"),
    "words": text("word "),
    "spaces": text(" "),
    "escaped letters": text("\\u0061"),
    "escaped nulls": text("\\u0000"),
    "lone surrogates": text("\\ud800"),
    "pairs of surrogates": text("\\ud83d\\ude00"),
    "emoji": text("😀"),
    "combining marks": text("\u0301"),
    "escaped quotes": text('\\"'),
    "nested lists": "[" * 2_000_000 + "]" * 2_000_000,
    "nested objects": '{"a":' * 690_000 + "1" + "}" * 690_000,
}

# Bodies that are no JSON object of a route.
WHOLE_BODIES = {
    "spaces": " " * _SIZE + "{}",
    "open lists": "[" * _SIZE,
    "an open string": '"' + "a" * _SIZE,
    "lines and an error": "\n" * _SIZE + "x",
    "unknown fields": numbered('"k', '":1', brackets="{}", count=350_000),
    "one unknown field of megabytes": "{" + text("k") + ":1}",
    "NaN": repeated("NaN"),
}


@dataclass(frozen=True, slots=True)
class Observed:
    """A server while it handled one body.

    Attributes:
        answer: the error; empty if there is none.
        slowest_health: seconds of the slowest `/health` in that time.
        loop_seconds: processor time of its event loop.
        memory: the most bytes above the memory before.
    """

    status: int
    answer: str
    seconds: float
    slowest_health: float
    loop_seconds: float
    memory: int


def body_of(base: dict[str, object], field: str, value: str) -> str:
    """The body with one field's value written as it stands."""
    rest = json.dumps({name: kept for name, kept in base.items() if name != field})[1:-1]
    return f"{{{json.dumps(field)}:{value}{', ' if rest else ''}{rest}}}"


def observe(url: str, pid: int, route: str, body: bytes) -> Observed:
    """Send a body, and ask for the server's health until it is answered."""
    process = psutil.Process(pid)
    before = process.memory_info().rss
    # The kernel then starts a new maximum for VmHWM.
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    loop_before = _loop_seconds(pid)
    answers: list[httpx.Response] = []
    started = time.monotonic()
    headers = {"content-type": "application/json"}
    sender = threading.Thread(
        target=lambda: answers.append(httpx.post(url + route, content=body, headers=headers, timeout=100))
    )
    slowest = 0.0
    with httpx.Client(base_url=url, timeout=100) as client:
        client.get("/health")
        sender.start()
        while sender.is_alive():
            asked = time.monotonic()
            assert client.get("/health").status_code == 200
            slowest = max(slowest, time.monotonic() - asked)
            time.sleep(0.002)
    sender.join()
    (answer,) = answers
    return Observed(
        answer.status_code,
        answer.text if answer.status_code != 200 else "",
        time.monotonic() - started,
        slowest,
        _loop_seconds(pid) - loop_before,
        _peak(pid) - before,
    )


def _loop_seconds(pid: int) -> float:
    """The processor time of the process's first thread, which runs the event loop."""
    nanoseconds, *_ = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
    return int(nanoseconds) / 1e9


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) << 10
