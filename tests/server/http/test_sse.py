"""Answers that end when their client leaves, without a server."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from server.http.api_error import APIError, bad_request
from server.http.sse import StreamResponse, event, while_connected

SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": []}


class Client:
    """A request whose client leaves when told to."""

    def __init__(self):
        self.gone = asyncio.Event()
        self.state = SimpleNamespace(request_id="req-1")
        self.sent = []

    async def receive(self):
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message.get("body", b"").decode())


def test_an_event_is_compact_json_with_name_and_id():
    sent = event({"text": "é", "n": [1, 2]}, name="step", id_=0)
    assert (sent.data, sent.event, sent.id) == ('{"text":"é","n":[1,2]}', "step", "0")
    assert event("[DONE]").data == "[DONE]"


def test_an_exception_after_the_start_is_the_last_event_and_releases_once():
    async def scenario():
        async def events():
            yield event({"n": 1})
            raise bad_request("broken", "prompt")

        client, released = Client(), []
        response = StreamResponse(events(), client, release=lambda: released.append(1))
        await response(SCOPE, client.receive, client.send)
        return "".join(client.sent), released

    text, released = asyncio.run(scenario())
    last = [line for line in text.splitlines() if line.startswith("data: ")][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["param"] == "prompt"
    assert released == [1]


def test_a_client_that_is_gone_before_the_first_event_is_released_too():
    async def scenario():
        async def events():
            await asyncio.sleep(30)
            yield event({})

        client, released = Client(), []
        client.gone.set()
        await StreamResponse(events(), client, release=lambda: released.append(1))(SCOPE, client.receive, client.send)
        return released

    assert asyncio.run(scenario()) == [1]


@pytest.mark.parametrize("leaves", [False, True])
def test_a_plain_answer_is_released_whether_it_is_read_or_not(leaves):
    async def scenario():
        async def answer():
            await asyncio.sleep(30 if leaves else 0)
            return "done"

        client, released = Client(), []
        if leaves:
            client.gone.set()
        try:
            return await while_connected(client, answer(), release=lambda: released.append(1)), released
        except APIError as error:
            return error.code, released

    assert asyncio.run(scenario()) == ("client_closed_request" if leaves else "done", [1])


def test_an_answer_cancelled_before_it_began_is_released():
    async def scenario():
        begun, released = [], []

        async def answer():
            begun.append(1)

        task = asyncio.ensure_future(while_connected(Client(), answer(), release=lambda: released.append(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return begun, released

    assert asyncio.run(scenario())[1] == [1]
