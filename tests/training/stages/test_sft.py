from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from jinja2 import Environment

from llada_core import DEMO_FOLDER, load_tokenizer
from llada_core.model.published_training import LLADA_TRAINING
from llada_core.text.chat_template import ChatTemplate
from llada_core.text.special_tokens import EOS_TOKEN, EOT_TOKEN
from llada_core.text.tokenizer import CHAT_TEMPLATE, Message
from tests.llada_core.text.test_chat_template import THINKING_TEMPLATE
from tests.training.fake_samples import EOS, SHAPE, batches_of, samples_of
from training.data.batches import Batching
from training.data.dialogues import DialogueRules, Turn
from training.data.files import Record
from training.data.formats import FilledGap, ReadReport
from training.options.fields import SFTOptions
from training.stages.chat import writes_thinking
from training.stages.objective import Objective, corrupt_batch
from training.stages.sft import SFT


def batches(samples, count, first=0, **settings):
    batching = Batching(4, seed=0, eos_id=EOS)
    return batches_of(SFT(200, **settings).planner(samples, batching), count, first)


def encode(tokenizer, *items, **settings):
    eos_id = tokenizer.token_to_id(EOS_TOKEN)
    encoder = SFT(**{"max_length": 200, **settings}).encoder(tokenizer, eos_id=eos_id)
    return list(encoder.encode(items)), encoder


def _messages(turns):
    return [Message(turn.role, turn.content) for turn in turns]


def test_rows_are_padded_with_supervised_eos_to_the_longest_of_the_batch():
    (batch,) = batches(samples_of(3, 9, 5, 7), 1)
    assert batch.tokens_BL.shape == (4, 9)
    assert batch.target_stops_B.tolist() == [9] * 4
    assert batch.spans == ((9,),) * 4
    for row, sample in zip(batch.tokens_BL, batch.samples_B.tolist(), strict=True):
        length = (3, 9, 5, 7)[sample]
        assert row.tolist() == [5 + sample] * length + [EOS] * (9 - length)


def test_answer_and_padding_are_targets_and_the_prompt_is_not():
    (batch,) = batches(samples_of(3, 9, 5, 7, prompt=2), 1)
    corrupted, is_target_BL, _ = corrupt_batch(batch, mask_id=99, seed=0)
    assert torch.equal(is_target_BL, torch.arange(9).expand(4, 9) >= 2)
    assert torch.equal(corrupted.tokens_BL[:, :2], batch.tokens_BL[:, :2])


def test_only_the_middle_of_a_gap_is_a_target_and_its_row_has_no_padding():
    (batch,) = batches(samples_of(3, 9, 5, 7, prompt=2, suffix=(0, 4, 2, 0)), 1)
    _, is_target_BL, _ = corrupt_batch(batch, mask_id=99, seed=0)
    rows = dict(zip(batch.samples_B.tolist(), is_target_BL.tolist(), strict=True))
    targets = {sample: [place for place in range(9) if row[place]] for sample, row in rows.items()}
    assert targets == {0: [*range(2, 9)], 1: [2, 3, 4], 2: [2], 3: [*range(2, 9)]}
    spans = dict(zip(batch.samples_B.tolist(), batch.spans, strict=True))
    assert spans == {0: (9,), 1: (9,), 2: (5,), 3: (9,)}
    tokens = dict(zip(batch.samples_B.tolist(), batch.tokens_BL.tolist(), strict=True))
    assert tokens[1] == [6] * 9 and tokens[2] == [7] * 5 + [EOS] * 4
    assert batch.normalizer_B.tolist() == [4.0 * len(targets[sample]) for sample in batch.samples_B.tolist()]


def test_the_loss_of_a_gap_is_that_of_the_row_alone(tiny_network):
    samples = samples_of(12, 12, 5, 12, prompt=2, suffix=(0, 4, 2, 0))
    (batch,) = batches(samples, 1)
    objective = Objective(tiny_network, mask_id=tiny_network.special_tokens.mask_id, seed=0, noise=LLADA_TRAINING)
    (row,) = [place for place, sample in enumerate(batch.samples_B.tolist()) if sample == 2]
    is_row_B = torch.arange(4) == row
    of_the_row = replace(batch, normalizer_B=torch.where(is_row_B, batch.normalizer_B, float("inf")))
    alone = replace(
        batch,
        **{
            name: getattr(batch, name)[row : row + 1]
            for name in ("samples_B", "epochs_B", "noise_levels_B", "target_starts_B", "target_stops_B", "normalizer_B")
        },
        tokens_BL=batch.tokens_BL[row : row + 1, :5],
        spans=((5,),),
    )
    assert torch.allclose(objective(alone).loss, objective(of_the_row).loss)


def test_the_normaliser_counts_the_padding():
    (batch,) = batches(samples_of(3, 9, 5, 7, prompt=2), 1)
    assert batch.normalizer_B.tolist() == [(9 - 2) * 4.0] * 4


def test_one_batch_in_three_is_padded_further():
    lengths = [batch.tokens_BL.shape[1] for batch in batches(samples_of(*[5] * 8), 600, pad_to=100)]
    assert max(lengths) <= 100
    assert 0.25 < sum(length > 5 for length in lengths) / 600 < 0.4


def test_a_short_padding_never_cuts_a_sample():
    assert {batch.tokens_BL.shape[1] for batch in batches(samples_of(*[50] * 8), 30, pad_to=8)} == {50}


def test_a_step_is_the_same_wherever_the_planner_starts():
    samples = samples_of(*range(2, 42))
    from_the_start, from_the_middle = batches(samples, 25, pad_to=64), batches(samples, 12, first=13, pad_to=64)
    for expected, batch in zip(from_the_start[13:], from_the_middle, strict=True):
        assert torch.equal(expected.tokens_BL, batch.tokens_BL)
        assert torch.equal(expected.epochs_B, batch.epochs_B)


def test_thinking_is_trained_as_the_template_writes_it():
    tokenizer = load_tokenizer(DEMO_FOLDER, chat_template=ChatTemplate(THINKING_TEMPLATE))
    messages = [
        {"role": "user", "content": "12 + 7?"},
        {"role": "assistant", "content": "19", "reasoning_content": "Add them."},
        {"role": "user", "content": "And 5?"},
        {"role": "assistant", "content": "24", "reasoning_content": "Five more."},
    ]
    template = Environment(trim_blocks=True, lstrip_blocks=True).from_string(THINKING_TEMPLATE)
    encoder = SFT(200).encoder(tokenizer, eos_id=tokenizer.token_to_id(EOS_TOKEN))
    report = ReadReport(limit=0)
    source = SimpleNamespace(records=lambda: [Record("line 1", {"messages": messages})])
    samples = list(encoder.encode(list(encoder.read(source, report))))
    assert len(samples) == 2 and not report.left_out
    for sample, end in zip(samples, (2, 4), strict=True):
        assert sample.ids[-1] == encoder.eos_id
        text = template.render(messages=messages[:end], add_generation_prompt=False)
        prompt = template.render(messages=messages[: end - 1], add_generation_prompt=True)
        assert tokenizer.decode(sample.ids[:-1], skip_special_tokens=False) == text
        assert tokenizer.decode(sample.ids[: sample.prompt_length], skip_special_tokens=False) == prompt
        assert messages[end - 1]["reasoning_content"] in text[len(prompt) :]


# The same template, but with thinking written for earlier answers only, or with a prompt that closes it.
THINKING_OF_HISTORY = THINKING_TEMPLATE.replace("loop.index0 > last.user", "loop.index0 < last.user")
CLOSED_THINKING = THINKING_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think></think>{% endif %}")
OPEN_THINKING = THINKING_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")


@pytest.mark.parametrize(
    ("template", "writes"),
    [
        (THINKING_TEMPLATE, True),
        (OPEN_THINKING, True),
        (THINKING_OF_HISTORY, False),
        (CLOSED_THINKING, False),
        ("{{ raise_exception('</think>') }}", False),
        (CHAT_TEMPLATE, False),
        (None, False),
    ],
)
def test_a_chat_format_has_thinking_if_an_answer_begins_with_it_after_its_prompt(template, writes):
    chat_template = None if template is None else ChatTemplate(template)
    assert writes_thinking(load_tokenizer(DEMO_FOLDER, chat_template=chat_template)) == writes


def test_tokens_are_those_of_a_template_and_are_made_anew_for_another(demo_tokenizer):
    tokenizers = [
        demo_tokenizer,
        *(load_tokenizer(DEMO_FOLDER, chat_template=ChatTemplate(text)) for text in (THINKING_TEMPLATE, CHAT_TEMPLATE)),
    ]
    identities = [str(SFT(200).encoder(tokenizer, eos_id=EOS).identity) for tokenizer in tokenizers]
    assert len(set(identities)) == 3


def test_every_assistant_turn_is_a_sample_with_its_history_as_prompt(demo_tokenizer):
    dialogue = [
        Turn("user", "one"), Turn("assistant", "two", True), Turn("user", "three"), Turn("assistant", "four", True),
    ]  # fmt: skip
    samples, _ = encode(demo_tokenizer, dialogue)
    end = [demo_tokenizer.token_to_id(token) for token in (EOT_TOKEN, EOS_TOKEN)]
    for sample, turn in zip(samples, (1, 3), strict=True):
        assert sample.ids[: sample.prompt_length] == demo_tokenizer.encode_chat(_messages(dialogue[:turn]))
        assert sample.ids[sample.prompt_length :] == [*demo_tokenizer.encode_plain(dialogue[turn].content), *end]


def test_only_the_turns_that_are_targets_give_samples_and_all_are_history(demo_tokenizer):
    dialogue = [
        Turn("user", "one"), Turn("assistant", "WRONG"), Turn("user", "three"), Turn("assistant", "four", True),
    ]  # fmt: skip
    (sample,), encoder = encode(demo_tokenizer, dialogue)
    assert demo_tokenizer.decode(sample.ids[sample.prompt_length :]) == "four"
    assert "WRONG" in demo_tokenizer.decode(sample.ids[: sample.prompt_length])
    assert encoder.num_without_target == 0
    samples, encoder = encode(demo_tokenizer, dialogue[:3], dialogue[:2])
    assert (samples, encoder.num_without_target) == ([], 2)


def test_the_parts_of_a_gap_are_tokenised_one_by_one_and_end_without_a_special_token(demo_tokenizer):
    gap = FilledGap("a big ", "fox", ".")
    dialogue = [Turn("user", "one"), Turn("assistant", "two", True)]
    samples, _ = encode(demo_tokenizer, dialogue, gap, ("a fox.",))
    (sample,) = [sample for sample in samples if sample.item == 1]
    prefix, middle, suffix = (demo_tokenizer.encode_plain(part) for part in ("a big ", "fox", "."))
    assert sample.ids == [*prefix, *middle, *suffix]
    assert (sample.prompt_length, sample.suffix_length) == (len(prefix), len(suffix))
    assert sorted(sample.item for sample in samples) == [0, 1, 2]


@pytest.mark.parametrize(("max_length", "suffix_length"), [(40, 28), (13, 1), (12, None), (5, None)])
def test_a_gap_over_the_maximum_length_loses_the_end_of_its_suffix_but_never_its_target(
    demo_tokenizer, max_length, suffix_length
):
    gap = FilledGap("one" + " two" * 9, "three", " two" * 30)
    (whole,), _ = encode(demo_tokenizer, gap)
    assert (whole.prompt_length, len(whole.ids) - whole.suffix_length) == (10, 12)
    assert encode(demo_tokenizer, gap, max_length=max_length, overlong="drop")[0] == []
    samples, encoder = encode(demo_tokenizer, gap, max_length=max_length, overlong="truncate")
    assert [sample.suffix_length for sample in samples] == ([] if suffix_length is None else [suffix_length])
    assert [len(sample.ids) for sample in samples] == ([] if suffix_length is None else [max_length])
    assert (encoder.num_dropped, encoder.num_truncated) == (1 - len(samples), len(samples))


def test_an_answer_is_tokenised_with_the_spaces_around_it(demo_tokenizer):
    (sample,), _ = encode(demo_tokenizer, [Turn("user", "Q"), Turn("assistant", "    return 1\n", is_target=True)])
    assert demo_tokenizer.decode(sample.ids[sample.prompt_length :]) == "    return 1\n"


@pytest.mark.parametrize(("overlong", "lengths"), [("drop", []), ("truncate", [20])])
def test_a_sample_over_the_maximum_length_is_dropped_or_truncated_and_counted(demo_tokenizer, overlong, lengths):
    samples, encoder = encode(demo_tokenizer, ("one two " * 30,), max_length=20, overlong=overlong)
    assert [len(sample.ids) for sample in samples] == lengths
    assert (encoder.num_dropped, encoder.num_truncated) == (1 - len(lengths), len(lengths))


def test_a_prompt_that_leaves_no_room_for_its_answer_is_dropped_even_if_truncation_is_asked_for(demo_tokenizer):
    dialogue = [Turn("user", "one two " * 30), Turn("assistant", "three", is_target=True)]
    samples, encoder = encode(demo_tokenizer, dialogue, max_length=20, overlong="truncate")
    assert (samples, encoder.num_dropped, encoder.num_truncated) == ([], 1, 0)


def test_the_settings_that_decide_the_tokens_are_part_of_a_shards_identity(demo_tokenizer):
    settings = (
        {"max_length": 20},
        {"max_length": 21},
        {"max_length": 20, "overlong": "truncate"},
        {"max_length": 20, "rules": DialogueRules(train_on="last")},
    )
    identities = [encode(demo_tokenizer, **chosen)[1].identity for chosen in settings]
    assert all(identities.count(identity) == 1 for identity in identities)
    _, same = encode(demo_tokenizer, max_length=20, pad_to=64)
    assert same.identity == identities[0]


OPTIONS = SFTOptions(
    model_name_or_path="x", train_data_path=["x"], output_dir="x", max_steps=1, max_length=24, overlong="truncate",
    pad_to=64,
)  # fmt: skip


def test_padding_counts_as_a_length_of_rows():
    stage = SFT.from_options(OPTIONS, SHAPE)
    assert stage == SFT(24, "truncate", 64)
    assert stage.row_lengths == {"max_length": 24, "pad_to": 64}


def test_a_prompt_is_a_message_by_the_user():
    assert SFT(50).prompt("Hi") == [Message("user", "Hi")]


def test_rows_of_a_block_causal_model_have_whole_blocks():
    stage = SFT.from_options(OPTIONS, replace(SHAPE, block_length=4))
    assert stage.row_lengths == {"max_length": 24, "pad_to": 64}
    assert replace(stage, block_length=5).row_lengths == {"max_length": 25, "pad_to": 65}
    batch, *_ = batches(samples_of(3, 9, 5, 7, prompt=2), 1, block_length=4)
    assert batch.tokens_BL.shape == (4, 12) and batch.spans == ((12,),) * 4
    _, is_target_BL, _ = corrupt_batch(batch, mask_id=99, seed=0)
    assert torch.equal(is_target_BL, torch.arange(12).expand(4, 12) >= 2)
    padded = {row.tokens_BL.shape[1] for row in batches(samples_of(*[5] * 8), 60, pad_to=30, block_length=4)}
    assert len(padded) > 3 and all(length % 4 == 0 for length in padded)
