import asyncio

import pytest

from llada_core.sampling.events import Change, DenoisingStep
from server.engine.mailbox import MAX_WAITING, Mailbox, TimedStep


def step(number: int) -> DenoisingStep:
    change = Change("commit", number, number, 5, 0.5)
    return DenoisingStep(
        number, 0, (change,), masked=999 - number, final_length=number, text_length=number, finish_reason=None
    )


def test_a_slow_reader_loses_nothing_and_memory_stays_bounded():
    async def scenario():
        mailbox = Mailbox()
        for number in range(1000):
            mailbox.put(TimedStep(step(number), 0.0))
        assert len(mailbox._steps) == MAX_WAITING
        return [(await mailbox.get()).event for _ in range(MAX_WAITING)]

    events = asyncio.run(scenario())
    assert [change.step for event in events for change in event.changes] == list(range(1000))
    assert events[0].step == 1000 - MAX_WAITING
    assert events[0].masked == 999 - events[0].step


def test_an_error_comes_after_the_steps_that_wait():
    async def scenario():
        mailbox = Mailbox()
        mailbox.put(TimedStep(step(0), 0.0))
        mailbox.fail(ValueError("broken"))
        assert (await mailbox.get()).event.step == 0
        with pytest.raises(ValueError, match="broken"):
            await mailbox.get()

    asyncio.run(scenario())
