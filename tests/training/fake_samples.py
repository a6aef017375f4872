"""Samples whose tokens say which sample they belong to."""

from dataclasses import dataclass

import numpy as np

from llada_core.model.shape import ModelShape
from training.data.samples import Sample

EOS = 1
SHAPE = ModelShape(num_layers=1, num_key_value_heads=1, head_dim=2, vocab_size=99, max_sequence_length=64)


@dataclass
class FakeSamples:
    """Sample i is the token 5 + i, `lengths[i]` times, with a prompt and a suffix of the given lengths."""

    lengths: np.ndarray
    prompt_lengths: np.ndarray
    suffix_lengths: np.ndarray
    spans: tuple[int, ...] | None = None
    digest = "fake"

    @property
    def groups(self):
        return np.arange(len(self.lengths))

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        length = int(self.lengths[index])
        tokens = np.full(length, 5 + index, dtype=np.int32)
        return Sample(tokens, int(self.prompt_lengths[index]), int(self.suffix_lengths[index]), self.spans or (length,))


def samples_of(*lengths, prompt=1, suffix=0, spans=None):
    prompts, suffixes = (np.broadcast_to(part, len(lengths)) for part in (prompt, suffix))
    return FakeSamples(np.array(lengths), prompts, suffixes, spans)


def batches_of(planner, count, first=0):
    return [planner.collate(planner.plan(step), slice(None)) for step in range(first, first + count)]
