"""Compares and times one forward pass of every candidate, over the same canvas with the same weights."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.inference import BLOCK_LENGTH, GEN_LENGTH, PROMPT_LENGTH
from benchmarks.lengths import KINDS
from benchmarks.peers.peer import Peer
from llada_core import load_model
from llada_core.model.interface import MaskPredictor
from llada_core.model.packed import PackedTokens, Rows

# Every difference and every ratio is to this one of ours.
BASELINE = "float32"


class Running(Protocol):
    """A peer's process; see `PeerProcess`."""

    version: str

    def cpu_seconds(self, kind: str, token_ids: Sequence[int], logits_file: Path | None = None) -> float: ...


@torch.inference_mode()
def measure(checkpoint: Path, peers: Sequence[tuple[Peer, Running]], rounds: int) -> dict[str, Any]:
    """Compare the logits of all candidates, then time those that compute the same network.

    Args:
        checkpoint: a folder with weights in float32; the peers' logits are saved in it.

    Returns:
        For each candidate its CPU milliseconds, each turn's and the median, and the `difference` of its logits from our
        float32 ones; for each that was refused, the difference and the tolerance; and the peers' versions.
    """
    models = {
        kind: load_model(checkpoint, dtype=str(dtype).removeprefix("torch."), quantization=quantization)
        for kind, (dtype, quantization) in KINDS.items()
    }
    packed = _canvas(models[BASELINE])
    block = Rows.of(packed, [np.arange(PROMPT_LENGTH, PROMPT_LENGTH + BLOCK_LENGTH)])
    logits_TV = {kind: _logits(model, packed) for kind, model in models.items()}
    differences = {kind: difference(logits_TV[kind], logits_TV[BASELINE]) for kind in models}
    turns: dict[str, Callable[[], float]] = {}
    refused: dict[str, dict[str, float]] = {}
    for kind, model in models.items():
        turns[kind] = partial(_cpu_seconds, model, packed)
        # The head, and the last layer's queries, only at one block: the work of a step of generation.
        turns[f"{kind}, one block"] = partial(_cpu_seconds, model, packed, block)
    for peer, process in peers:
        for kind, tolerance in peer.tolerances.items():
            name, file = f"{peer.name} {kind}", checkpoint / "logits.npy"
            process.cpu_seconds(kind, packed.tokens_T.tolist(), file)
            found = difference(np.load(file), logits_TV[BASELINE])
            # Written so that a NaN is refused as well.
            if not found <= tolerance:
                refused[name] = {"difference": found, "tolerance": tolerance}
                continue
            differences[name] = found
            turns[name] = partial(process.cpu_seconds, kind, packed.tokens_T.tolist())
    return {
        "candidates": {
            name: {"cpu_ms": median(turns_ms), "turns_ms": turns_ms, "difference": differences.get(name)}
            for name, turns_ms in _alternate(turns, rounds).items()
        },
        "refused": refused,
        "versions": {peer.name: process.version for peer, process in peers},
    }


def difference(logits_TV: np.ndarray, expected_TV: np.ndarray) -> float:
    """Return the root mean square of the differences, in standard deviations of what is expected."""
    return float(np.sqrt(np.mean((logits_TV - expected_TV) ** 2)) / np.std(expected_TV))


def _canvas(model: MaskPredictor) -> PackedTokens:
    """A prompt of random words, and masks behind it."""
    mask_id = model.special_tokens.mask_id
    # The last three words are the special ones, as in all random models here.
    prompt_P = torch.randint(model.shape.vocab_size - 3, (PROMPT_LENGTH,), generator=torch.Generator().manual_seed(0))
    tokens_T = torch.cat((prompt_P, torch.full((GEN_LENGTH,), mask_id)))
    return PackedTokens(tokens_T, (len(tokens_T),))


def _logits(model: MaskPredictor, packed: PackedTokens) -> np.ndarray:
    return model.head(model.hidden_states(packed)).float().numpy()


def _cpu_seconds(model: MaskPredictor, packed: PackedTokens, rows: Rows | None = None) -> float:
    started = time.process_time()
    model.head(model.hidden_states(packed, rows))
    return time.process_time() - started


def _alternate(turns: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Let every candidate take its turn in every round; returns milliseconds. A first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(1 + rounds):
        for name, turn in turns.items():
            seconds = turn()
            if number:
                times[name].append(1000 * seconds)
    return times
