"""Training samples, and the order in which epochs visit them.

A sample's index is its identity: noise and order are functions of (seed, index, epoch), so a resumed run sees what an
uninterrupted one would have seen.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llada_core.counter_noise import Purpose, uniform
from llada_core.tokenizer import Message, Tokenizer

# Batches of similar length are cut from windows of this many batches: little padding, still a random mixture.
_WINDOW_BATCHES = 50


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids; the first `prompt_length` are never masked (0 in pre-training)."""

    tokens: np.ndarray
    prompt_length: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded with EOS to one length. B rows, L positions.

    Attributes:
        samples_B: the index of each row's sample.
        tokens_BL: clean token ids.
        prompt_lengths_B: positions before these are not masked.
    """

    samples_B: Tensor
    tokens_BL: Tensor
    prompt_lengths_B: Tensor
    epoch: int


def pack_documents(texts: Iterable[str], tokenizer: Tokenizer, *, eos_id: int, max_length: int) -> list[Sample]:
    """Documents laid end to end, each ended by EOS, cut into samples of `max_length` tokens; the tail is dropped."""
    stream = np.fromiter((i for text in texts for i in (*tokenizer.encode_plain(text), eos_id)), dtype=np.int32)
    count = len(stream) // max_length
    return [Sample(row, 0) for row in stream[: count * max_length].reshape(count, max_length)]


def tokenize_dialogues(
    dialogues: Iterable[Sequence[Message]], tokenizer: Tokenizer, *, eos_id: int, max_length: int
) -> tuple[list[Sample], int]:
    """One sample for every assistant turn: its history is the prompt, the reply with EoT and one EOS the answer.

    Returns:
        The samples, and how many were left out because they are longer than `max_length`.
    """
    samples, too_long = [], 0
    for dialogue in dialogues:
        for turn, message in enumerate(dialogue):
            if message.role != "assistant":
                continue
            prompt = tokenizer.encode_chat(dialogue[:turn])
            whole = tokenizer.encode_chat(dialogue[: turn + 1], add_generation_prompt=False)
            if len(whole) >= max_length:
                too_long += 1
                continue
            samples.append(Sample(np.array([*whole, eos_id], dtype=np.int32), len(prompt)))
    return samples, too_long


def batches(
    samples: Sequence[Sample], *, batch_size: int, seed: int, eos_id: int, pad_to: int | None, first_step: int = 0
) -> Iterator[Batch]:
    """Endless batches, epoch after epoch, from the optimizer step `first_step` on.

    Args:
        pad_to: None pads a batch to its longest row. A length lets one batch in three be padded further, up to it:
            short answers then also occur on long canvases, which is what the sampler will show the model.
    """
    per_epoch = max(1, len(samples) // batch_size)
    step = first_step
    while True:
        epoch = step // per_epoch
        order = _epoch_order(samples, batch_size=batch_size, seed=seed, epoch=epoch)
        for number in range(step % per_epoch, per_epoch):
            indices = order[number]
            target = 0 if pad_to is None else _padded_length(pad_to, seed=seed, step=step)
            yield _collate(samples, indices, eos_id=eos_id, epoch=epoch, at_least=target)
            step += 1


def _epoch_order(samples: Sequence[Sample], *, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    shuffled = uniform(seed, Purpose.DATA_ORDER, epoch, torch.arange(len(samples))).argsort().numpy()
    lengths = np.array([len(samples[index].tokens) for index in shuffled])
    found = []
    for start in range(0, len(shuffled), batch_size * _WINDOW_BATCHES):
        window = slice(start, start + batch_size * _WINDOW_BATCHES)
        by_length = shuffled[window][np.argsort(lengths[window], kind="stable")]
        found += [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    found = [batch for batch in found if len(batch) == batch_size] or [shuffled]
    order = uniform(seed, Purpose.DATA_ORDER, epoch, -1 - torch.arange(len(found))).argsort().tolist()
    return [found[i] for i in order]


def _padded_length(pad_to: int, *, seed: int, step: int) -> int:
    chosen, fraction = (float(uniform(seed, Purpose.LENGTH_CUT, step, which)) for which in (0, 1))
    return int(pad_to * fraction) if chosen < 1 / 3 else 0


def _collate(samples: Sequence[Sample], indices: np.ndarray, *, eos_id: int, epoch: int, at_least: int) -> Batch:
    rows = [samples[index] for index in indices]
    length = max(at_least, *(len(row.tokens) for row in rows), 1)
    tokens_BL = np.full((len(rows), length), eos_id, dtype=np.int64)
    for row, sample in zip(tokens_BL, rows, strict=True):
        row[: len(sample.tokens)] = sample.tokens
    return Batch(
        torch.from_numpy(indices.astype(np.int64)),
        torch.from_numpy(tokens_BL),
        torch.tensor([sample.prompt_length for sample in rows]),
        epoch,
    )
