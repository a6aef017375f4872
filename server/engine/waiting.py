"""Who comes next: things that wait, kept apart by the client that sent them."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Generic, Protocol, TypeVar


class FromClient(Protocol):
    """Something that a client sent: whoever has its API key or, where there are none, its address."""

    @property
    def client(self) -> str: ...


T = TypeVar("T", bound=FromClient)


class Waiting(Generic[T]):
    """A queue for each client. The clients take turns; each one's own are in the order in which they came."""

    def __init__(self) -> None:
        # The first client is the one whose turn is next.
        self._queues: dict[str, deque[T]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[T]:
        return (item for queue in self._queues.values() for item in queue)

    @property
    def clients(self) -> Collection[str]:
        """The clients that have something waiting, in the order of their turns."""
        return self._queues.keys()

    def number_of(self, client: str) -> int:
        return len(self._queues.get(client, ()))

    def first_of(self, client: str) -> T:
        """What comes next of a client that has something waiting."""
        return self._queues[client][0]

    def add(self, items: Iterable[T]) -> None:
        for item in items:
            self._queues.setdefault(item.client, deque()).append(item)

    def put_back(self, item: T) -> None:
        """Let something that was taken come first again among its client's."""
        self._queues.setdefault(item.client, deque()).appendleft(item)

    def take(self, client: str) -> T:
        """Take the first of a client's; its next turn comes after those of all others."""
        queue = self._queues.pop(client)
        item = queue.popleft()
        if queue:
            self._queues[client] = queue
        return item

    def remove(self, item: T) -> None:
        """Forget something, if it waits here."""
        queue = self._queues.get(item.client, deque())
        if item in queue:
            queue.remove(item)
            if not queue:
                del self._queues[item.client]

    def clear(self) -> None:
        self._queues.clear()
