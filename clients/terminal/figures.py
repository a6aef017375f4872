"""The figures of a run: always the server's own times, however long the film took."""

from clients.replay import Replay


def progress(replay: Replay) -> str:
    """How far a run is shown."""
    start = replay.start
    assert start is not None
    done = len(replay.steps)
    steps = f"step {done}" if start.steps is None else f"step {done} of {start.steps}"
    first, last = start.block_of(0), start.block_of(start.gen_length - 1)
    block = [f"block {replay.steps[-1].block + 1} of {last + 1}"] if last > first and replay.steps else []
    return _joined([steps, *block, f"{_count(replay.num_masked, 'mask')} left"])


def figures(replay: Replay) -> str:
    """Steps, forward passes, tokens and speed of a finished run."""
    assert replay.done is not None
    usage = replay.done.usage
    tokens, seconds = usage["completion_tokens"], true_seconds(replay)
    parts = [
        _count(usage["denoising_steps"], "step"),
        _count(usage["forward_passes"], "forward pass", "forward passes"),
        _count(tokens, "token"),
        f"{seconds:.2f} s",
    ]
    if seconds > 0:
        rate = tokens / seconds
        parts.append(f"{rate:.0f} tokens/s" if rate >= 10 else f"{rate:.1f} tokens/s")
    return _joined(parts)


def true_seconds(replay: Replay) -> float:
    """From the admission of the request to its last step, on the server's clock."""
    return replay.steps[-1].elapsed_ms / 1000 if replay.steps else 0.0


def _joined(parts: list[str]) -> str:
    """The parts on a line, which may be broken between two of them only."""
    return " · ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)


def _count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
