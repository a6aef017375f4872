"""`llada-train rollouts`: the page of a run's answers."""

import json
import re
from pathlib import Path
from typing import Any

from tests.training.conftest import llada_train, succeed, write_jsonl


def group(step: int, *answers: tuple[str, float], **known: Any) -> dict[str, Any]:
    mean = sum(reward for _, reward in answers) / len(answers)
    rollouts = [
        {"text": text, "token_ids": [1], "scores": {"exact": reward}, "reward": reward, "advantage": reward - mean}
        for text, reward in answers
    ]
    prompt = [{"role": "user", "content": "2 + 2?"}]
    return {"step": step, "sample": 0, "epoch": 0, "prompt": prompt, **known, "rollouts": rollouts}


def page_of(folder: Path, *options: object) -> str:
    succeed("rollouts", folder, *options)
    return (folder / "rollouts.html").read_text()


def test_the_best_answer_comes_first_and_no_answer_is_markup(tmp_path):
    write_jsonl(tmp_path / "rollouts.jsonl", [group(1, ("<b>5</b>", 0.0), ("4", 1.0), answer="4 & nothing else")])
    page = page_of(tmp_path)
    assert page.index("<pre>4</pre>") < page.index("&lt;b&gt;5&lt;/b&gt;") and "<b>5</b>" not in page
    assert "4 &amp; nothing else" in page and "Step 1: reward 0.500 of 2 answers" in page
    assert re.search(r'class="number above">▲ \+0.50', page) and re.search(r'class="number below">▼ -0.50', page)


def test_steps_and_prompts_are_bounded_and_the_first_and_last_step_are_shown(tmp_path):
    write_jsonl(tmp_path / "rollouts.jsonl", [group(step, ("x", step / 100)) for step in range(1, 101) for _ in "ab"])
    page = page_of(tmp_path, "--steps", 3, "--prompts", 1)
    assert re.findall(r"<summary>Step (\d+):", page) == ["1", "50", "100"]
    assert page.count("<article>") == 3 and "over 100 steps" in page and "lowest 0.010, highest\n1.000" in page
    assert len(re.findall(r"[\d.]+,[\d.]+ ", page)) == 100
    assert re.findall(r"<summary>Step (\d+):", page_of(tmp_path, "--steps", 1)) == ["100"]
    assert len(re.findall("<summary>", page_of(tmp_path, "--steps", 1000))) == 100


def test_a_line_that_a_kill_cut_short_is_passed_over(tmp_path):
    whole = json.dumps(group(1, ("x", 0.5)))
    (tmp_path / "rollouts.jsonl").write_text(f"{whole}\n{whole[:40]}")
    assert "over 1 step:" in page_of(tmp_path)


def test_a_folder_without_rollouts_is_refused(tmp_path):
    outcome = llada_train("rollouts", tmp_path)
    assert outcome.returncode == 1 and "no rollouts; they are written by `llada-train grpo" in outcome.stderr
