"""The threads of a computation on a CPU: how many cores there are, how idle threads wait, how many pay off.

`num_cores`, `wait_passively` and `spin_briefly` start nothing, so they can be called before torch is imported.
"""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llada_core.model.interface import MaskPredictor

# A canvas as most requests have it: a short prompt and the default response, all of it through the head.
_TRIAL_LENGTH = 128
_NUM_TRIALS = 8
_TRIAL_SECONDS = 1.0
# A model that takes this long for one token gains from every core, and would make the trial take minutes.
_SECONDS_OF_A_LARGE_MODEL = 0.05
# Ten thousand were a quarter faster on an idle machine and a tenth slower on a busy one.
_SPINS = "300"


def num_cores() -> int:
    """The cores that this process may use: a container or `taskset` may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait_passively() -> None:
    """Let idle OpenMP threads sleep instead of spin, unless the user says otherwise; call it before torch is imported.

    Torch's forward and backward passes have a pool of threads each, and the one that waits would spin on the cores that
    the other needs: with another process on the machine, training took eight times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def spin_briefly() -> None:
    """Let idle OpenMP threads spin for a moment and then sleep, unless the user says otherwise; call it before torch.

    GNU's threads spin almost without end. Between the operations of one denoising step that pays off, but a thread that
    waits for a core which another process has keeps the others waiting too: beside three busy loops an answer took ten
    times as long, with this three times, and as long as before on an idle machine.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def fastest_num_threads(model: "MaskPredictor", *, clock: Callable[[], float] = time.perf_counter) -> int:
    """One thread, or all that torch may use, whichever computes a forward pass faster; the model's pick at load.

    A small model loses more by dividing its work than it gains, above all when other processes want the cores. The two
    are timed in turns and the best times compared, in about a second at most. Torch's setting is left as it was.
    """
    import torch

    most = torch.get_num_threads()
    if model.device.type != "cpu" or most == 1 or _seconds(_trial(model, 1), clock) > _SECONDS_OF_A_LARGE_MODEL:
        return most
    trial = _trial(model, min(_TRIAL_LENGTH, model.shape.max_sequence_length))
    seconds: dict[int, list[float]] = {1: [], most: []}
    started = clock()
    try:
        while len(seconds[most]) < _NUM_TRIALS and clock() - started < _TRIAL_SECONDS:
            for number, measured in seconds.items():
                torch.set_num_threads(number)
                measured.append(_seconds(trial, clock))
    finally:
        torch.set_num_threads(most)
    return min(seconds, key=lambda number: min(seconds[number]))


def _seconds(computation: Callable[[], None], clock: Callable[[], float]) -> float:
    begun = clock()
    computation()
    return clock() - begun


def _trial(model: "MaskPredictor", length: int) -> Callable[[], None]:
    """A forward pass over a canvas of this length, all of it through the head."""
    import torch

    from llada_core.model.packed import PackedTokens

    packed = PackedTokens(torch.zeros(length, dtype=torch.long), (length,))

    @torch.inference_mode()
    def forward() -> None:
        model.head(model.hidden_states(packed))

    return forward
