"""Every training command has a stage, and the names that checkpoints and shards are known by stay."""

from tests.training.fake_samples import SHAPE
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


def test_a_stage_names_the_special_tokens_that_its_tokenizer_must_have():
    assert not stage_of(PretrainOptions(**SHARED), SHAPE).required_tokens
    assert len(stage_of(SFTOptions(**SHARED), SHAPE).required_tokens) == 3
