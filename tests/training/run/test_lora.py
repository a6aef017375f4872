import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import llada_train, succeed


def test_adapters_leave_the_base_alone_and_the_output_folder_has_them_merged(workspace, tmp_path):
    out = tmp_path / "out"
    succeed(*workspace.sft(out, "--lora-r", 2, "--learning-rate", 1e-2))
    base, merged = (load_file(folder / "model.safetensors") for folder in (workspace.folder / "base", out))
    changed = {name for name in base if not base[name].equal(merged[name])}
    assert changed == {name for name in base if "blocks" in name and "norm" not in name}
    adapters = load_file(out / "adapter" / "adapter_model.safetensors")
    assert len(adapters) == 2 * len(changed)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft reads it
def test_adapters_loaded_with_peft_give_the_same_logits(workspace, tmp_path):
    from peft import PeftModel

    from llada_core import load_checkpoint

    out = tmp_path / "out"
    succeed(*workspace.sft(out, "--lora-r", 2, "--learning-rate", 1e-2))
    merged = load_checkpoint(out)
    wrapped = PeftModel.from_pretrained(load_checkpoint(workspace.folder / "base"), str(out / "adapter"))
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        # The merged weights are stored in bfloat16.
        torch.testing.assert_close(wrapped.get_base_model()(ids).logits, merged(ids).logits, atol=0.05, rtol=0.05)


def test_an_adapter_merged_on_disk_is_the_model_that_the_run_wrote(workspace, tmp_path):
    out, merged = tmp_path / "out", tmp_path / "merged"
    succeed(*workspace.sft(out, "--lora-r", 2, "--learning-rate", 1e-2))
    succeed("export", "--adapter", out / "adapter", "--output-dir", merged)
    trained, exported = (load_file(folder / "model.safetensors") for folder in (out, merged))
    assert trained.keys() == exported.keys()
    # The two sum in another order before they are rounded to bfloat16.
    assert all(torch.allclose(trained[name], exported[name], rtol=0.01, atol=1e-4) for name in trained)
    assert (merged / "tokenizer.json").read_bytes() == (out / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either checkpoint or adapter"),
        (["--checkpoint", "x", "--adapter", "y"], "give either checkpoint or adapter"),
        (["--adapter", "nowhere"], "adapter nowhere: no such folder"),
    ],
    ids=str,
)
def test_an_export_that_cannot_be_is_one_line(tmp_path, words, message):
    outcome = llada_train("export", "--output-dir", tmp_path / "out", *words)
    assert outcome.returncode != 0
    assert message in outcome.stderr
