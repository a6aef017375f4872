import pytest
from safetensors.torch import load_file

from tests.training.conftest import succeed


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
    import torch
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
