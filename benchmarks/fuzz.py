"""Sends a server requests that are wrong in every way: bodies, headers, encodings, depth, sizes.

    python -m benchmarks.fuzz                      # 20,000 requests, ten minutes

Each begins as a right one of some route, and is then spoilt at random. No answer may be an error of the server, none
may fail to come, and the memory of the server may not have grown.
"""

import asyncio
import gzip
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import psutil  # type: ignore[import-untyped]
import typer

from benchmarks import machine
from tests.live_server import LiveServer

_CHAT = [{"role": "user", "content": "What is 2 + 2?"}]
_BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Once", "max_tokens": 4, "stop": ["."], "logprobs": 1, "n": 2, "seed": 1},
    "/v1/fim/completions": {"prompt": "Once ", "suffix": " time", "max_tokens": 2},
    "/v1/chat/completions": {"messages": _CHAT, "max_tokens": 4, "logit_bias": {"5": 1}, "temperature": 0.5},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 4},
    "/v1/responses/input_tokens": {"input": "Hello"},
    "/v1/denoise": {"canvas": ["Once ", {"mask": 2}, " time"], "predictions": True},
    "/v1/score": {"prompt": "a", "completion": "b", "mc_num": 2},
    "/v1/decisions": {"input": "a", "questions": [{"type": "predicate", "instructions": "b"}], "order_averages": 1},
    "/v1/systemone": {"state": {"a": 1}, "questions": {"b": {"type": "score", "criteria": ["c", "d"]}}},
    "/tokenize": {"messages": _CHAT},
    "/detokenize": {"tokens": [1, 2, 3]},
}
_PATHS = ("/", "/health", "/ready", "/metrics", "/v1/models", "/v1/denoise/x", "/load", "/%00", "/..%2f", "/v1/", "*")
_METHODS = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "X" * 50)
# A right request may wait for many others that are right, too.
_HANG_SECONDS = 300
_MEGABYTE = 2**20


def main(
    requests: Annotated[int, typer.Option(help="How many.", min=1)] = 20_000,
    at_once: Annotated[int, typer.Option(help="Connections at a time.", min=1)] = 32,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Print the counts of statuses, write them to benchmarks/results/fuzz.json; exit 1 on any problem."""
    with LiveServer("--log-level", "error", "--client-timeout", "2", "--keep-alive", "2", threads=None) as server:
        result = asyncio.run(fuzz(server, requests=requests, at_once=at_once, seed=seed))
    typer.echo(json.dumps(result, indent=2))
    machine.write("fuzz", {"machine": machine.describe(), **result})
    if result["problems"]:
        raise typer.Exit(1)


async def fuzz(server: LiveServer, *, requests: int, at_once: int, seed: int) -> dict[str, Any]:
    """The statuses and what was wrong."""
    url, process = httpx.URL(server.url), psutil.Process(server.process.pid)
    statuses: Counter[str] = Counter()
    problems: list[str] = []
    numbers = iter(range(requests))
    memory: list[int] = []

    async def work() -> None:
        for number in numbers:
            request = spoilt(random.Random(f"{seed} {number}"))
            try:
                async with asyncio.timeout(_HANG_SECONDS):
                    status = await _ask(url, request)
            except TimeoutError:
                problems.append(f"request {number} was not answered within {_HANG_SECONDS} s: {request[:200]!r}")
                continue
            statuses[status] += 1
            if status.startswith("5") and status != "501":  # 501: a transfer coding that nobody has
                problems.append(f"request {number}: status {status}: {request[:200]!r}")
            if number % 100 == 0:
                memory.append(process.memory_info().rss // _MEGABYTE)

    started = time.monotonic()
    await asyncio.gather(*(work() for _ in range(at_once)))
    grown = memory[-1] - memory[len(memory) // 3]
    if grown > 50:
        problems.append(f"memory has grown by {grown} MB over the last two thirds")
    return {
        "requests": sum(statuses.values()),
        "seconds": round(time.monotonic() - started),
        "statuses": dict(sorted(statuses.items())),
        "memory_mb": {"after_a_third": memory[len(memory) // 3], "highest": max(memory), "last": memory[-1]},
        "problems": problems[:20],
    }


async def _ask(url: httpx.URL, request: bytes) -> str:
    """The status of the answer; what became of the connection if there was none."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(request)
        answer = await reader.read()
    except ConnectionError:
        return "reset"
    finally:
        writer.close()
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    return answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "no answer"


def spoilt(draw: random.Random) -> bytes:
    """A request, spoilt in one way or several."""
    path = draw.choice(list(_BODIES))
    content = json.loads(json.dumps(_BODIES[path]))
    for _ in range(draw.choice((0, 1, 1, 1, 2, 4))):
        _spoil_value(content, draw)
    body = draw.choice(_ENCODINGS)(content, draw)
    headers = {"Host": "localhost", "Connection": "close", "Content-Type": "application/json"}
    method = "POST"
    if draw.random() < 0.1:
        method, path = draw.choice(_METHODS), draw.choice((*_PATHS, path))
    for _ in range(draw.choice((0, 0, 1, 3))):
        name, value = draw.choice(_HEADERS)(draw)
        headers[name] = value
    if draw.random() < 0.2 and "Content-Length" not in headers:
        headers["Transfer-Encoding"] = "chunked"
        body = _chunked(body, draw)
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if "Transfer-Encoding" not in headers and "Content-Length" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    request = "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + body
    if draw.random() < 0.05:
        place = draw.randrange(len(request))
        request = request[:place] + draw.randbytes(draw.randint(1, 4)) + request[place + draw.randint(0, 3) :]
    return request


def _spoil_value(value: Any, draw: random.Random) -> None:
    """Change something within an object or a list."""
    while isinstance(value, dict | list) and value:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw.choice(keys)
        if isinstance(value[key], dict | list) and draw.random() < 0.5:
            value = value[key]
            continue
        if isinstance(value, dict) and draw.random() < 0.3:
            value[_text(draw)] = value.pop(key) if draw.random() < 0.5 else _value(draw)
        elif draw.random() < 0.2:
            del value[key]
        else:
            value[key] = _value(draw)
        return


def _value(draw: random.Random, depth: int = 0) -> Any:
    kinds: list[Callable[[], Any]] = [
        lambda: draw.choice((None, True, False, 0, -1, 1, 3, 10**30, -(10**400), 2**63, 1e308, float("nan"), 0.5)),
        lambda: _text(draw),
        lambda: _text(draw) * draw.choice((1, 100, 10_000)),
        lambda: [draw.randint(-5, 5000)] * draw.choice((1, 10, 3000)),
    ]
    if depth < 5:
        kinds += [
            lambda: [_value(draw, depth + 1) for _ in range(draw.randint(0, 4))],
            lambda: {_text(draw): _value(draw, depth + 1) for _ in range(draw.randint(0, 4))},
        ]
    return draw.choice(kinds)()


_WORDS = (
    *("", "a", "stop", "prompt", "stream", "\u00f6", "\u6f22\u5b57", "\U0001f600", "\u2028", "\x00", "\ud800"),
    *("<|mdm_mask|>", "</s>", "'", "%s"),
)


def _text(draw: random.Random) -> str:
    return "".join(draw.choice(_WORDS) for _ in range(draw.randint(0, 4)))


def _nested(draw: random.Random) -> bytes:
    depth = draw.choice((10, 1000, 100_000))
    opening, closing = draw.choice(((b"[", b"]"), (b'{"a":', b"}")))
    return opening * depth + b"1" + closing * draw.choice((0, depth))


_ENCODINGS: tuple[Callable[[Any, random.Random], bytes], ...] = (
    *[lambda content, _: json.dumps(content).encode()] * 8,
    lambda content, _: json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass"),
    lambda content, draw: json.dumps(content).encode(draw.choice(("utf-16", "utf-32", "utf-7", "utf-8-sig"))),
    lambda content, _: gzip.compress(json.dumps(content).encode()),
    lambda content, draw: json.dumps(content).encode()[: draw.randint(0, 60)],
    lambda _, draw: draw.randbytes(draw.choice((0, 10, 1000))),
    lambda _, draw: _nested(draw),
    lambda content, draw: json.dumps([content] * draw.choice((2, 2000))).encode(),
    lambda content, draw: b" " * draw.choice((10, 10_000, 5 * _MEGABYTE)) + json.dumps(content).encode(),
)

_HEADERS: tuple[Callable[[random.Random], tuple[str, str]], ...] = (
    lambda draw: ("Content-Type", draw.choice(("", "text/plain", "application/x-www-form-urlencoded", "a/b; q=\x01"))),
    lambda draw: ("Content-Length", draw.choice(("0", "5", "-1", "1e3", "99999999999", "5, 5", "x"))),
    lambda draw: ("Content-Encoding", draw.choice(("gzip", "br", "x"))),
    lambda draw: ("Transfer-Encoding", draw.choice(("chunked", "gzip", "identity", "chunked, chunked"))),
    lambda draw: ("Host", draw.choice(("", "evil.example", "localhost:1", "[::1", "a b"))),
    lambda draw: ("Origin", draw.choice(("null", "https://evil.example", "x"))),
    lambda draw: ("Authorization", draw.choice(("Bearer", "Bearer ü", "Basic eA==", "x" * 5000))),
    lambda draw: ("Accept", draw.choice(("text/event-stream", "*/*;q=x", ""))),
    lambda draw: ("X-Request-Id", draw.choice(("a", "a b", "ü", "x" * 200))),
    lambda draw: ("Last-Event-ID", draw.choice(("0", "-1", "x", "9" * 1000))),
    lambda draw: ("traceparent", draw.choice(("", "00-" + "0" * 32 + "-1-01", "x" * 300))),
    lambda draw: ("Expect", draw.choice(("100-continue", "x"))),
    lambda draw: ("Upgrade", draw.choice(("websocket", "h2c"))),
    lambda draw: (draw.choice(("X", "x y", "Ü", "")), "x" * draw.choice((1, 1000, 100_000))),
)


def _chunked(body: bytes, draw: random.Random) -> bytes:
    parts, size = [], draw.choice((1000, 100_000, 2**22))
    for start in range(0, len(body), size):
        part = body[start : start + size]
        parts.append(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    return b"".join(parts) + draw.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"", b"x\r\n"))


if __name__ == "__main__":
    typer.run(main)
