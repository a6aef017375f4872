import pytest
import torch

from llada_core.text.special_tokens import EOS_TOKEN
from tests.training.fake_samples import EOS, SHAPE, batches_of, samples_of
from training.data.batches import Batching
from training.options.fields import PretrainOptions
from training.stages.objective import corrupt_batch
from training.stages.pretrain import Pretraining
from training.stages.sft import SFT


def batches(samples, count, batch_size=4):
    batching = Batching(batch_size, seed=0, eos_id=EOS)
    return batches_of(Pretraining(50).planner(samples, batching), count)


def cut_lengths(batch_size):
    """The length of every sample in the first epoch."""
    lengths = {}
    for batch in batches(samples_of(*[50] * 4000, prompt=0), 4000 // batch_size, batch_size):
        lengths |= dict(zip(batch.samples_B.tolist(), batch.target_stops_B.tolist(), strict=True))
    return lengths


def test_one_sample_in_a_hundred_is_cut_to_a_random_length_whatever_the_batch_size():
    lengths = cut_lengths(batch_size=4)
    cut = [length for length in lengths.values() if length < 50]
    assert 20 <= len(cut) <= 60
    assert min(cut) >= 1 and len(set(cut)) > 10
    assert lengths == cut_lengths(batch_size=40)


def test_what_a_cut_leaves_of_a_row_is_neither_computed_nor_a_target():
    for batch in batches(samples_of(*[50] * 400, prompt=0, spans=(20, 30)), 100):
        for spans, stop, row in zip(batch.spans, batch.target_stops_B.tolist(), batch.tokens_BL, strict=True):
            assert sum(spans) == stop
            assert (row[stop:] == EOS).all()
            assert spans == ((20, stop - 20) if stop > 20 else (stop,))


def test_every_token_of_a_sample_is_a_target_and_its_padding_is_not():
    for batch in batches(samples_of(3, 9, 5, 7, prompt=0), 3):
        _, is_target_BL, _ = corrupt_batch(batch, mask_id=99, seed=0)
        assert torch.equal(is_target_BL, batch.tokens_BL != EOS)


def test_a_document_ends_with_eos(demo_tokenizer):
    eos_id = demo_tokenizer.token_to_id(EOS_TOKEN)
    (document,) = Pretraining(50).encoder(demo_tokenizer, eos_id=eos_id).encode([("one two",)])
    assert document.ids == [*demo_tokenizer.encode_plain("one two"), eos_id]
    assert document.prompt_length == 0


@pytest.mark.parametrize("stage", [Pretraining(50), SFT(50)])
def test_the_parts_of_a_document_are_tokenised_as_the_segments_of_a_canvas(demo_tokenizer, stage):
    parts = ("a big ", "dog", ".")
    encoder = stage.encoder(demo_tokenizer, eos_id=demo_tokenizer.token_to_id(EOS_TOKEN))
    in_parts, whole, last = encoder.encode([parts, ("".join(parts),), ("x",)])
    assert in_parts.ids[:-1] == [token for part in parts for token in demo_tokenizer.encode_plain(part)]
    assert in_parts.ids != whole.ids
    assert last.ids[:-1] == demo_tokenizer.encode_plain("x")


def test_packing_follows_the_options():
    options = PretrainOptions(
        model_name_or_path="x", train_data_path=["x"], output_dir="x", max_steps=1, max_length=24,
        attend_across_documents=False,
    )  # fmt: skip
    assert Pretraining.from_options(options, SHAPE) == Pretraining(24, attend_across_documents=False)


def test_a_prompt_is_a_text_to_continue():
    assert Pretraining(50).prompt("Once") == "Once"


def test_a_cut_leaves_whole_blocks_of_a_block_causal_model():
    planner = Pretraining(50, block_length=8).planner(
        samples_of(*[50] * 4000, prompt=0), Batching(40, seed=0, eos_id=EOS)
    )
    stops = [stop for batch in batches_of(planner, 100) for stop in batch.target_stops_B.tolist()]
    cut = [stop for stop in stops if stop < 50]
    assert len(set(cut)) > 3 and all(stop % 8 == 0 for stop in cut)
