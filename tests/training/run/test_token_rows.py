"""`--train-tokens`: rows of a frozen embedding and head, against a network in which the whole matrices are trained."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from llada_core import load_checkpoint
from llada_core.diffusion.loss import cross_entropy, head_losses
from llada_core.model.packed import PackedTokens
from tests.training.conftest import llada_train, losses, succeed
from training.run.token_rows import TokenRows, merge_rows, train_rows

IDS = (7, 3)
TOKENS = PackedTokens(torch.tensor([1, 7, 5, 3, 7, 2, 9, 3]), (5, 3))
TARGETS = torch.tensor([7, 1, 2, 3, 4, 9, 7, 3])


@pytest.fixture(params=["untied", "tied"])
def network(request, golden_networks, workspace):
    if request.param == "untied":
        return copy.deepcopy(golden_networks["tiny-mha"])
    return load_checkpoint(workspace.folder / "base", dtype="float32")


def loss(network):
    return head_losses(network, network.hidden_states(TOKENS), TARGETS, cross_entropy).sum()


def test_logits_and_gradients_of_rows_are_those_of_the_whole_matrices(network):
    whole, rows = copy.deepcopy(network).requires_grad_(True), network.requires_grad_(False)
    train_rows(rows, IDS)
    for module in [module for module in rows.modules() if isinstance(module, TokenRows)]:
        module.rows.data += 0.1
    for matrix in {id(m): m for m in (whole.get_input_embeddings(), whole.get_output_embeddings())}.values():
        matrix.weight.data[list(IDS)] += 0.1
    losses_ = loss(rows), loss(whole)
    torch.testing.assert_close(*losses_)
    for value in losses_:
        value.backward()
    pairs = [(rows.get_input_embeddings().rows.grad, whole.get_input_embeddings().weight.grad[list(IDS)])]
    if not network.config.weight_tying:
        pairs.append((rows.get_output_embeddings().rows.grad, whole.get_output_embeddings().weight.grad[list(IDS)]))
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)
    merge_rows(rows)
    assert rows.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(rows.state_dict()[name], weight) for name, weight in whole.state_dict().items())


TOKEN = "<|eot_id|>"
OPTIONS = ["--lora-r", 2, "--learning-rate", 1e-2, "--train-tokens", TOKEN, "--train-tokens", "<|endoftext|>"]


@pytest.fixture(scope="module")
def trained(workspace, tmp_path_factory):
    out = tmp_path_factory.mktemp("rows") / "out"
    succeed(*workspace.sft(out, *OPTIONS, "--keep-last", 3))
    return out


def changed_rows(base, out):
    before, after = (load_file(folder / "model.safetensors")["model.transformer.wte.weight"] for folder in (base, out))
    return (before != after).any(dim=1).nonzero().flatten().tolist()


def ids_of(folder):
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    return sorted(token["id"] for token in added if token["content"] in (TOKEN, "<|endoftext|>"))


def test_only_the_named_tokens_rows_change(workspace, trained):
    assert changed_rows(workspace.folder / "base", trained) == ids_of(trained)


def test_the_adapter_holds_the_rows_and_every_way_to_merge_it_gives_the_same_model(workspace, trained, tmp_path):
    exported = tmp_path / "exported"
    succeed("export", "--adapter", trained / "adapter", "--output-dir", exported)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (exported, trained))
    assert all(torch.allclose(ours[name], theirs[name], rtol=0.01, atol=1e-4) for name in theirs)
    assert changed_rows(workspace.folder / "base", exported) == ids_of(trained)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft reads it
def test_peft_reads_the_adapter_and_gives_the_same_logits(workspace, trained):
    from peft import PeftModel

    merged = load_checkpoint(trained)
    wrapped = PeftModel.from_pretrained(load_checkpoint(workspace.folder / "base"), str(trained / "adapter"))
    ids = torch.tensor([[*ids_of(trained), *range(5, 25)]])
    with torch.no_grad():
        hidden = [network.hidden_states(PackedTokens(ids[0], (22,))) for network in (wrapped.get_base_model(), merged)]
    # The merged weights are stored in bfloat16.
    torch.testing.assert_close(*hidden, atol=0.05, rtol=0.05)


def test_a_run_resumes_and_another_goes_on_from_its_rows(workspace, trained, tmp_path):
    before = losses(trained)
    succeed(*workspace.sft(trained, *OPTIONS, "--keep-last", 3, "--resume-from", 8))
    assert losses(trained) == before
    out = tmp_path / "out"
    succeed(*workspace.sft(out, "--adapter", trained / "adapter", "--learning-rate", 1e-30))
    ours, theirs = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (out, trained))
    assert ours.keys() == theirs.keys() and any("trainable_tokens_delta" in name for name in ours)
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_sharded_rows_train_as_on_one_process(workspace, tmp_path, two_processes):
    options = [*OPTIONS, "--max-steps", 6, "--dtype", "float32", "--batch-size", 8, "--base-dtype", "nf4"]
    succeed(*workspace.sft(tmp_path / "one", *options[:-2]))
    two_processes.run(*workspace.sft(tmp_path / "two", *options[:-2], "--strategy", "fsdp"))
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert max(abs(one[step] - two[step]) for step in one) < 1e-4
    succeed(*workspace.sft(tmp_path / "small", *options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train-tokens", TOKEN], "train_tokens: without lora_r or adapter all weights are trained"),
        (["--lora-r", 2, "--train-tokens", "<tool>"], "--train-tokens: the tokenizer has no <tool>; add them to its"),
        (
            ["--adapter", "x", "--train-tokens", TOKEN],
            "train_tokens: the adapters that training",
        ),
    ],
    ids=str,
)
def test_tokens_that_cannot_be_trained_are_refused(workspace, tmp_path, options, message):
    outcome = llada_train(*workspace.sft(tmp_path / "out", *options))
    assert outcome.returncode == 1
    assert message in outcome.stderr
