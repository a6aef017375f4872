"""The Python client against a real server with the demo model."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from httpx_sse import connect_sse

from clients import (
    APIError,
    AsyncLLaDAClient,
    AuthenticationError,
    BadRequestError,
    Done,
    Fork,
    Gap,
    LLaDAClient,
    LLaDAError,
    NoServerError,
    NotFoundError,
    OverloadedError,
    Replay,
    Start,
    Step,
)
from tests.clients.python.cutting_proxy import CuttingProxy
from tests.live_server import ForkedServer
from tests.server.scripted import talking

PROMPT = {"prompt": "Once upon a time", "max_tokens": 8, "seed": 1}
QUESTION = "What is the capital of France?"


@pytest.fixture
def client(live_server):
    with LLaDAClient(live_server) as client:
        yield client


def test_it_completes_chats_scores_tokenises_and_lists_models(client):
    assert "Paris" in client.chat(QUESTION, max_tokens=32).text
    completion = client.complete("Once upon a time", max_tokens=16, seed=3)
    assert completion.text and completion.finish_reason in ("stop", "length")
    assert completion.generation_params["seed"] == 3 and completion.usage["denoising_steps"] <= 16
    ids = client.tokenize("Once upon a time")
    assert client.complete(ids, max_tokens=16, seed=3).text == completion.text
    (model,) = client.models()
    assert model.mask_token_id < model.vocab_size
    score = client.score("Once upon a time", " there was a fox.", mc_num=8)
    assert score.log_likelihood < 0 < score.stderr
    assert client.health() == "ready"


def test_streamed_pieces_add_up_to_the_plain_text(client):
    pieces = list(client.stream_chat(QUESTION, max_tokens=32))
    assert "".join(pieces) == client.chat(QUESTION, max_tokens=32).text
    assert "".join(client.stream_complete("Once", max_tokens=32)) == client.complete("Once", max_tokens=32).text


def test_thinking_is_apart_from_the_text(demo):
    said = {"text": " It is 19.", "reasoning": "12 and 7"}
    with talking(demo, None, reasoning_parser="think") as talk:
        talk.will_say("<think>12 and 7</think> It is 19.")
        url, thinking = str(talk.http.base_url), []

        async def ask():
            async with AsyncLLaDAClient(url) as other:
                pieces = [
                    piece async for piece in other.stream_chat(QUESTION, max_tokens=96, on_thinking=thinking.append)
                ]
                return "".join(pieces)

        with LLaDAClient(url) as client:
            answer = client.chat(QUESTION, max_tokens=96)
            assert {"text": answer.text, "reasoning": answer.reasoning} == said
            pieces = list(client.stream_chat(QUESTION, max_tokens=96, on_thinking=thinking.append))
            assert ("".join(pieces), "".join(thinking)) == (said["text"], said["reasoning"])
            thinking.clear()
            assert (asyncio.run(ask()), "".join(thinking)) == (said["text"], said["reasoning"])
            assert list(client.stream_chat(QUESTION, max_tokens=96)) == pieces
            # An answer that is all thinking has no text.
            talk.will_say("<think>12")
            answer = client.chat(QUESTION, max_tokens=96)
            assert (answer.text, answer.reasoning) == ("", "12")


def test_a_replay_of_the_events_ends_as_the_server_says(client):
    events = list(client.denoise("Once upon a time", max_tokens=24, steps=12))
    assert isinstance(events[0], Start) and isinstance(events[-1], Done)
    assert all(isinstance(event, Step) for event in events[1:-1])
    replay = Replay.of(events)
    assert tuple(replay.token_ids) == events[-1].token_ids and replay.num_masked == 0
    for count in (0, 1, 5, 12):
        frame = replay.at(count)
        assert frame.num_masked == 24 - sum(len(step.changes) for step in replay.steps[:count])
        assert all(frame.is_masked(position) == (change is None) for position, change in enumerate(frame.changes))
    changes = [change for change in replay.changes if change is not None]
    assert all(0 < change.confidence <= 1 and change.op == "commit" for change in changes)
    assert replay.start.special_tokens[replay.start.mask_token_id] == "<|mdm_mask|>"


def test_a_fork_goes_on_from_a_frame_and_knows_what_was_written_before(client, live_server):
    whole = Replay.of(client.denoise("Once upon a time", max_tokens=12, temperature=1.0, seed=2, ignore_eos=True))
    rest = Replay.of(client.denoise(fork=Fork(whole.start.id, 5)))
    assert rest.token_ids == whole.token_ids and rest.changes == whole.changes
    assert (rest.start.parent.id, rest.start.parent.step) == (whole.start.id, 5)
    assert [step.step for step in rest.steps] == list(range(5, 12))
    assert rest.at(0).num_masked == 7 and sum(change is not None for change in rest.at(0).changes) == 5

    async def ask():
        async with AsyncLLaDAClient(live_server) as other:
            edited = Fork(rest.start.id, 12, remask=[0], set={3: " blue", 8: [40, 41]})
            return Replay.of([event async for event in other.denoise(fork=edited, seed=7)])

    branch = asyncio.run(ask())
    assert branch.token_ids[8:10] == [40, 41] and " blue" in branch.done.text
    assert branch.start.generation_params["seed"] == 7 and len(branch.steps) == 1
    with pytest.raises(BadRequestError) as caught:
        next(client.denoise(fork=Fork(whole.start.id, 5, set={12: " blue"})))
    assert caught.value.param == "fork.set.12"
    with pytest.raises(NotFoundError):
        next(client.denoise(fork=Fork("denoise-0", 5)))
    with pytest.raises(ValueError, match="streams nothing"):
        next(client.denoise("Once", steps=0))


def test_a_gap_is_filled_and_its_surroundings_stay(client):
    text = client.infill(["The capital of France is", Gap(1), "."])
    assert text.startswith("The capital of France is") and text.endswith(".") and len(text) > 25


def test_the_asynchronous_client_gives_the_same_answers(client, live_server):
    async def ask():
        async with AsyncLLaDAClient(live_server) as other:
            assert await other.health() == "ready"
            return [
                (await other.chat(QUESTION, max_tokens=32)).text,
                (await other.complete("Once", max_tokens=16)).text,
                "".join([piece async for piece in other.stream_chat(QUESTION, max_tokens=32)]),
                Replay.of([event async for event in other.denoise("Once", max_tokens=16)]).token_ids,
                await other.infill(["The capital of France is", Gap(1), "."]),
                await other.tokenize("Once"),
                await other.models(),
                (await other.score("Once", " upon", mc_num=4, seed=1)).log_likelihood,
            ]

    assert asyncio.run(ask()) == [
        client.chat(QUESTION, max_tokens=32).text,
        client.complete("Once", max_tokens=16).text,
        client.chat(QUESTION, max_tokens=32).text,
        Replay.of(client.denoise("Once", max_tokens=16)).token_ids,
        client.infill(["The capital of France is", Gap(1), "."]),
        client.tokenize("Once"),
        client.models(),
        client.score("Once", " upon", mc_num=4, seed=1).log_likelihood,
    ]


@pytest.mark.parametrize("cuts", [(1500,), (100,), (2500, 1800, 900)], ids=str)
def test_a_stream_that_is_cut_is_taken_up_again_without_a_lost_event(client, live_server, cuts):
    request = {"max_tokens": 32, "steps": 32, "seed": 1}
    whole = list(client.denoise("Once upon a time", **request))
    with CuttingProxy(live_server, *cuts) as proxy:
        with LLaDAClient(proxy.url) as cut:
            events = list(cut.denoise("Once upon a time", **request))
        assert proxy.num_cut == len(cuts)

        async def ask():
            async with AsyncLLaDAClient(proxy.url) as other:
                return [event async for event in other.denoise("Once upon a time", **request)]

        assert [type(event) for event in asyncio.run(ask())] == [type(event) for event in whole]
    assert [event.step for event in events[1:-1]] == [event.step for event in whole[1:-1]]
    assert Replay.of(events).token_ids == Replay.of(whole).token_ids
    assert events[-1].text == whole[-1].text


def test_a_server_that_breaks_off_for_good_is_said_to_be_gone(live_server):
    gone = pytest.raises(NoServerError, match=r"no server answers at http://127")
    with CuttingProxy(live_server, *[300] * 50) as proxy, LLaDAClient(proxy.url, max_retries=1) as client, gone:
        list(client.denoise("Once", max_tokens=16))


def test_errors_say_what_the_server_said(client, live_server):
    with pytest.raises(BadRequestError, match="temperature") as caught:
        client.complete("Once", temperature=-1)
    assert (caught.value.status, caught.value.param) == (400, "temperature") and caught.value.request_id
    with pytest.raises(BadRequestError):
        next(client.stream_chat("Hi", temperature=-1))
    with pytest.raises(BadRequestError):
        next(client.denoise("Hi", temperature=-1))
    with pytest.raises(NotFoundError):
        client.complete("Once", model="another")
    with pytest.raises(TypeError, match="exactly one of prompt, messages, canvas, fork, not none of them"):
        next(client.denoise())
    with LLaDAClient("http://127.0.0.1:9", max_retries=0) as nobody:
        assert nobody.health() == "gone"
        with pytest.raises(NoServerError, match="start one with llada-server"):
            nobody.complete("Once")


def test_a_key_is_sent_and_a_missing_one_is_an_error_of_its_own(monkeypatch):
    with ForkedServer("--api-key", "secret") as server:
        with LLaDAClient(server.url) as client, pytest.raises(AuthenticationError):
            client.models()
        monkeypatch.setenv("LLADA_SERVER", server.url)
        monkeypatch.setenv("LLADA_API_KEY", "secret")
        with LLaDAClient() as client:
            assert client.models()


class Busy(BaseHTTPRequestHandler):
    """Refuses as many requests as its server is told to, then answers."""

    def do_POST(self):
        self.server.num_asked += 1
        is_refused = self.server.num_asked <= self.server.num_refused
        error = {"error": {"message": "the queue is full", "type": "x", "param": None, "code": "queue_full"}}
        content = json.dumps(error if is_refused else {"tokens": [1]}).encode()
        self.send_response(429 if is_refused else 200)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@pytest.mark.parametrize(("num_refused", "is_answered"), [(2, True), (3, True), (4, False)])
def test_a_refused_request_is_tried_again_as_often_as_is_allowed(num_refused, is_answered):
    server = HTTPServer(("127.0.0.1", 0), Busy)
    server.num_asked, server.num_refused = 0, num_refused
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with LLaDAClient(f"http://127.0.0.1:{server.server_port}", max_retries=3) as client:
        if is_answered:
            assert client.tokenize("x") == [1]
        else:
            with pytest.raises(OverloadedError, match="the queue is full"):
                client.tokenize("x")
    server.shutdown()
    server.server_close()
    assert server.num_asked == min(num_refused, 3) + 1


def test_a_request_that_was_accepted_is_not_sent_twice():
    class Silent(Busy):
        def do_POST(self):
            self.server.num_asked += 1
            time.sleep(1)

    server = HTTPServer(("127.0.0.1", 0), Silent)
    server.num_asked = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with LLaDAClient(f"http://127.0.0.1:{server.server_port}", timeout=0.2) as client, pytest.raises(NoServerError):
        client.complete("x")
    server.shutdown()
    server.server_close()
    assert server.num_asked == 1


def test_an_answer_that_is_not_the_servers_is_quoted():
    class Proxy(Busy):
        def do_POST(self):
            self.send_error(502, "Bad Gateway")

    server = HTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    quoted = pytest.raises(APIError, match=r"(?s)HTTP 502: .*Error response")
    with LLaDAClient(f"http://127.0.0.1:{server.server_port}") as client, quoted:
        client.tokenize("x")
    server.shutdown()
    server.server_close()


def test_it_is_imported_without_torch_or_transformers():
    code = "import sys, clients; print(*sorted({'torch', 'transformers', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def stream_of(events, *, between):
    """An answer of `/v1/denoise` with something between its events."""
    parts = [f"id: {i}\r\nevent: {name}\r\ndata: {json.dumps(data)}\r\n\r\n" for i, (name, data) in enumerate(events)]
    return between + between.join(parts) + between


@pytest.mark.parametrize("between", [": ping - 2026\r\n\r\n", ":\n\n", "retry: 10\n\n", "\n\n", ""])
def test_what_keeps_a_connection_alive_is_no_event(live_server, between):
    with httpx.Client() as http, connect_sse(http, "POST", f"{live_server}/v1/denoise", json=PROMPT) as source:
        events = [(event.event, json.loads(event.data)) for event in source.iter_sse() if event.data]
    body = stream_of(events, between=between).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with LLaDAClient(f"http://127.0.0.1:{server.server_port}") as other:
        assert Replay.of(other.denoise(**PROMPT)).done.text == events[-1][1]["text"]

    async def ask():
        async with AsyncLLaDAClient(f"http://127.0.0.1:{server.server_port}") as other:
            return Replay.of([event async for event in other.denoise(**PROMPT)]).done.text

    assert asyncio.run(ask()) == events[-1][1]["text"]
    server.shutdown()
    server.server_close()


def served_once(*answers):
    """A server that gives these answers in turn: status and body."""
    waiting = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            status, body = waiting.pop(0)
            self.send_response(status)
            self.send_header("retry-after", "0")
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


LOADING = json.dumps({"error": {"message": "the model is being loaded", "code": "loading"}})
CHUNK = 'data: {"choices": [{"text": "Once"}]}\n\n'


@pytest.mark.parametrize("attempts", [0, 1, 3])
def test_a_stream_that_was_not_accepted_is_tried_again(attempts):
    server, url = served_once(*[(503, LOADING)] * attempts, (200, CHUNK + "data: [DONE]\n\n"))
    with LLaDAClient(url) as client:
        assert list(client.stream_complete("x")) == ["Once"]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (CHUNK, "the stream ended before the whole answer was there"),
        ("", "the stream ended before the whole answer was there"),
        ("data: {garb\n\n", "is not JSON"),
    ],
)
def test_a_stream_without_its_end_is_an_error(body, message):
    server, url = served_once((200, body))
    with LLaDAClient(url) as client, pytest.raises(LLaDAError, match=message):
        list(client.stream_complete("x"))
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("method", ["complete", "denoise"])
def test_an_answer_of_something_else_is_an_error_of_the_client(method):
    server, url = served_once(*[(200, "data: <html>\n\n")] * 4)
    with LLaDAClient(url) as client, pytest.raises(LLaDAError, match="is not a llada-server"):
        result = getattr(client, method)("x")
        list(result)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("key", ["a\nb", "schlüssel", "two words"])
def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(key):
    with pytest.raises(ValueError, match="an API key has only") as refused:
        LLaDAClient(api_key=key)
    assert key not in str(refused.value)


def test_the_tokens_of_a_text_have_texts_that_make_it_again(client):
    text = "Once upon a time,\n naïve foxes"
    tokens = client.token_texts(text)
    assert "".join(part for _, part in tokens).replace("\ufffd", "") in (text, text.replace("ï", ""))
    assert [i for i, _ in tokens] == client.tokenize(text)
