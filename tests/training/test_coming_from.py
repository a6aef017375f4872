"""docs/coming_from.md: what people ran elsewhere runs here as the page says, with fewer steps."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.training.conftest import ROOT, llada_train, succeed
from training.options.fields import PretrainOptions, SFTOptions
from training.options.sections import option_names

PAGE = (ROOT / "docs" / "coming_from.md").read_text()


def commands(block: int) -> list[list[str]]:
    lines = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)[block].replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the page's config.yaml, in which every stage has run as the page says."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "examples").symlink_to(ROOT / "examples")
    content = yaml.safe_load(re.search(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)[1])
    assert {"model", "pretraining", "sft", "inference"} < content.keys()
    for stage in ("pretraining", "sft"):
        content[stage] |= {"max_steps": 3, "threads": 1}
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        printed = {words[words.index("--stage") + 1 :][0]: succeed(*words) for words in commands(0)[:-1]}
        assert "Dry run: nothing was written" in printed["all"]
        assert "inference with out/instruct" in printed["inference"]
        assert succeed(*commands(0)[-1]).count("finished already") == 3
    return folder


@pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
@pytest.mark.parametrize("remasking", ["low_confidence", "random"])
@pytest.mark.parametrize("method", ["fixed_length", "semi_autoregressive_padding", "semi_autoregressive_origin"])
def test_every_method_and_remasking_answers_with_and_without_guidance(home, monkeypatch, method, remasking, cfg_scale):
    monkeypatch.chdir(home)
    (words,) = commands(1)
    # Of a repeated option the last counts.
    words += [
        "--method",
        method,
        "--remasking",
        remasking,
        "--cfg_scale",
        str(cfg_scale),
        "--gen_length",
        "8",
        "--steps",
        "4",
    ]
    assert succeed(*words)
    assert succeed(*words, "--no_is_instruct")


def test_the_pages_options_are_options():
    known = option_names(PretrainOptions) | option_names(SFTOptions)
    table = PAGE.split("## Another trainer")[1]
    ours = [
        name for row in table.splitlines() if row.startswith("| `") for name in re.findall(r"`(\w+)", row.split("|")[2])
    ]
    assert len(ours) > 15
    assert set(ours) - {"strategy"} <= known


def test_an_option_of_another_trainer_is_refused_with_its_name_here():
    table = PAGE.split("## Another trainer")[1]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    for theirs, ours in rows:
        for name in re.findall(r"`(\w+)`", theirs):
            outcome = llada_train("sft", f"--{name}", "1")
            assert outcome.returncode != 0
            meant = re.search(r"here it is --([\w-]+)", outcome.stderr)
            assert meant, (name, outcome.stderr)
            assert meant[1].replace("-", "_") in ours, (name, outcome.stderr)
