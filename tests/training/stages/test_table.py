"""Every training command has a stage, and the names that checkpoints and shards are known by stay."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from llada_core.model.published_training import PublishedTraining
from tests.training.fake_samples import SHAPE
from training.errors import TrainingError
from training.options.fields import PretrainOptions, SFTOptions, TrainingOptions
from training.options.sections import SECTIONS
from training.stages.pretrain import DocumentEncoder
from training.stages.sft import DialogueEncoder
from training.stages.table import STAGES, stage_of

SHARED = {"max_length": 64, "model_name_or_path": "x", "train_data_path": ["x"], "output_dir": "x", "max_steps": 1}


def test_every_training_section_has_a_stage():
    assert {kind for kind in SECTIONS.values() if issubclass(kind, TrainingOptions)} == STAGES.keys()


def test_checkpoints_and_shards_of_earlier_versions_are_known_by_the_same_names():
    assert stage_of(PretrainOptions(**SHARED), SHAPE).name == "PretrainOptions"
    assert stage_of(SFTOptions(**SHARED), SHAPE).name == "SFTOptions"
    assert (DocumentEncoder.name, DialogueEncoder.name) == ("documents", "dialogues")


@pytest.mark.parametrize("options", [PretrainOptions, SFTOptions])
def test_a_chosen_mask_ratio_takes_the_place_of_the_published_one(options):
    llada2 = replace(SHAPE, training=PublishedTraining(lowest=0.3, highest=0.8, weighs_share=True))

    def ratios(shape, **chosen):
        training = stage_of(options(**SHARED, **chosen), shape).training
        assert training.weighs_share == shape.training.weighs_share
        return training.lowest, training.highest

    assert ratios(SHAPE) == (1e-3, 1.0) and ratios(llada2) == (0.3, 0.8)
    assert ratios(SHAPE, min_mask_ratio=1) == (1.0, 1.0)
    assert ratios(llada2, min_mask_ratio=0.1, max_mask_ratio=0.5) == (0.1, 0.5)
    with pytest.raises(TrainingError, match=r"min_mask_ratio and max_mask_ratio: 0\.9 is above 0\.8"):
        ratios(llada2, min_mask_ratio=0.9)
    with pytest.raises(TrainingError, match=r"0\.0002"):
        ratios(SHAPE, max_mask_ratio=0.0002)
    for wrong in ({"min_mask_ratio": 0}, {"max_mask_ratio": 1.01}, {"min_mask_ratio": float("nan")}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            ratios(SHAPE, **wrong)


def test_a_stage_names_the_special_tokens_that_its_tokenizer_must_have():
    assert not stage_of(PretrainOptions(**SHARED), SHAPE).required_tokens
    assert len(stage_of(SFTOptions(**SHARED), SHAPE).required_tokens) == 3
