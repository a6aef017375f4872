"""The lm-evaluation-harness adapter: its answers are the core's, and whole tasks run offline with the demo model."""

import json
import runpy
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import lm_eval
import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook, CachingLM
from lm_eval.api.registry import model_registry
from lm_eval.tasks import TaskManager
from lm_eval.utils import warning_once

from llada_core import DEMO_FOLDER, GenerationParams, generate
from llada_core.diffusion.likelihood import AnswerScorer, log_likelihood
from llada_core.model.network import Network
from llada_core.text.tokenizer import Message, Tokenizer
from tests.conftest import GOLDEN
from tests.llada_core.model.architectures.test_family import network_of
from training.evaluation import lm_eval as lm_eval_adapter
from training.evaluation.lm_eval import LLaDALM

TASKS = Path(__file__).parents[1] / "lm_eval_task"
MC_NUM = 8
QUESTION = "What is the capital of France?"
BOS_ID = 0


@pytest.fixture(scope="module")
def harness_model() -> LLaDALM:
    return LLaDALM(pretrained=str(DEMO_FOLDER), device="cpu", mc_num=MC_NUM, gen_length=16, batch_size=4)


@pytest.fixture
def babbling_model(harness_model, babbler, monkeypatch) -> LLaDALM:
    """The same with random weights, for a quarter of the cost, where any text will do."""
    monkeypatch.setattr(harness_model, "_model", babbler)
    return harness_model


def ask(kind: str, *arguments: object) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def score(model: LLaDALM, context: str, continuation: str) -> tuple[float, bool]:
    return model.loglikelihood([ask("loglikelihood", context, continuation)])[0]


def write(model: LLaDALM, context: str, **gen_kwargs: object) -> str:
    return model.generate_until([ask("generate_until", context, gen_kwargs)])[0]


def chat(model: LLaDALM, question: str) -> str:
    return model.apply_chat_template([{"role": "user", "content": question}])


def estimate(demo: Network, prompt: list[int], answer: list[int], *, mc_num: int = MC_NUM, **settings) -> float:
    return log_likelihood(demo, prompt, answer, mask_id=demo.special_tokens.mask_id, mc_num=mc_num, **settings).value


def test_loglikelihood_is_the_core_s_estimate(harness_model, demo, demo_tokenizer):
    prompt, answer = demo_tokenizer.encode("The capital of France is"), demo_tokenizer.encode(" a city, Paris.")
    assert len(answer) > 1
    value, _ = score(harness_model, "The capital of France is", " a city, Paris.")
    assert value == estimate(demo, prompt, answer)


def test_guidance_and_seed_hold_for_likelihoods(harness_model, demo, demo_tokenizer, monkeypatch):
    prompt, answer = demo_tokenizer.encode("The capital of France is"), demo_tokenizer.encode(" a city, Paris.")
    monkeypatch.setattr(harness_model, "_params", GenerationParams(cfg_scale=1.0, seed=5))
    value, _ = score(harness_model, "The capital of France is", " a city, Paris.")
    assert value == estimate(demo, prompt, answer, cfg_scale=1.0, seed=5)


def test_one_token_takes_one_draw(harness_model, demo, demo_tokenizer, monkeypatch):
    prompt, answer = demo_tokenizer.encode("The capital of France is"), demo_tokenizer.encode(" Paris")
    assert len(answer) == 1
    drawn = []
    monkeypatch.setattr(
        lm_eval_adapter,
        "log_likelihood",
        lambda *args, mc_num, **kwargs: drawn.append(mc_num) or log_likelihood(*args, mc_num=mc_num, **kwargs),
    )
    value, _ = score(harness_model, "The capital of France is", " Paris")
    assert drawn == [1]
    assert value == pytest.approx(estimate(demo, prompt, answer, mc_num=16))


def test_spaces_that_end_a_context_are_the_answer_s(harness_model, demo_tokenizer):
    prompt, answer = demo_tokenizer.encode("The capital of France is"), demo_tokenizer.encode(" Paris")
    assert harness_model._encode_pair("The capital of France is ", "Paris") == (prompt, answer)
    assert harness_model._encode_pair("The capital of France is", " Paris") == (prompt, answer)


def test_the_newlines_of_a_chat_header_stay_the_prompt_s(harness_model, demo_tokenizer):
    prompt = demo_tokenizer.encode_chat([Message("user", QUESTION)])
    assert harness_model._encode_pair(chat(harness_model, QUESTION), "Paris") == (
        prompt,
        demo_tokenizer.encode("Paris"),
    )


def test_an_empty_context_is_the_token_that_starts_texts(harness_model, demo, demo_tokenizer):
    answer = demo_tokenizer.encode("Once upon a time")
    value, _ = score(harness_model, "", "Once upon a time")
    assert value == estimate(demo, [BOS_ID], answer)


def test_a_continuation_without_tokens_is_an_error(harness_model):
    with pytest.raises(ValueError, match="continuation is ''; it must have at least 1 token"):
        score(harness_model, QUESTION, "")


def test_greedy_is_what_the_model_generates_by_itself(harness_model):
    context = chat(harness_model, "What is the capital of Germany?")
    assert score(harness_model, context, "The capital of Germany is Berlin.<|eot_id|>")[1]
    assert not score(harness_model, context, "The capital of Germany is Rome.<|eot_id|>")[1]


def test_greedy_is_one_block(babbling_model, babbler, demo_tokenizer):
    prompt = demo_tokenizer.encode_chat([Message("user", "Tell me a story about a dog.")])
    one_block, two_blocks = (
        generate(babbler, [prompt], GenerationParams(gen_length=34, block_length=length, ignore_eos=True))[0].token_ids
        for length in (34, 17)
    )
    assert babbling_model._is_greedy(prompt, one_block)
    assert not babbling_model._is_greedy(prompt, two_blocks)


def test_greedy_is_at_the_model_s_guidance(harness_model, demo, demo_tokenizer, monkeypatch):
    prompt = demo_tokenizer.encode("The capital of")
    plain, guided = (
        generate(demo, [prompt], GenerationParams(gen_length=4, cfg_scale=cfg_scale, ignore_eos=True))[0].token_ids
        for cfg_scale in (0.0, 3.0)
    )
    monkeypatch.setattr(harness_model, "_params", GenerationParams(cfg_scale=3.0))
    assert harness_model._is_greedy(prompt, guided)
    assert not harness_model._is_greedy(prompt, plain)


def test_greedy_looks_behind_end_tokens(harness_model, demo, demo_tokenizer):
    prompt = demo_tokenizer.encode(chat(harness_model, QUESTION) + "The capital of France is Paris.")
    answer = [demo.special_tokens.eot_id, *[demo.special_tokens.eos_id] * 3]
    assert harness_model._is_greedy(prompt, answer)
    for position in range(4):
        assert not harness_model._is_greedy(prompt, [*answer[:position], prompt[1], *answer[position + 1 :]])


def test_a_block_causal_model_is_scored_and_greedy_block_by_block(harness_model, monkeypatch):
    model, prompt = network_of("sdar", "tiny-8b-like"), [7, 8, 9, 10, 11]
    monkeypatch.setattr(harness_model, "_model", model)
    answer = generate(model, [prompt], GenerationParams(gen_length=10, steps_per_block=4, ignore_eos=True))[0].token_ids
    assert harness_model._is_greedy(prompt, answer)
    assert not harness_model._is_greedy(prompt, [*answer[:-1], answer[-1] ^ 1])
    assert harness_model._estimate(prompt, answer) == estimate(model, prompt, answer)
    assert AnswerScorer(model, prompt, answer, mask_id=0).part_lengths == (3, 4, 3)


def test_answers_are_in_the_order_of_the_requests(babbling_model):
    cities = ["Rome", "Paris", "a city that nobody knows", "Berlin"]
    pairs = [("The capital of France is", f" {city}") for city in cities]
    together = babbling_model.loglikelihood([ask("loglikelihood", *pair) for pair in pairs])
    assert together == [score(babbling_model, *pair) for pair in pairs]
    countries = ("France", "Japan", "Peru", "Kenya", "Cuba")
    contexts = [chat(babbling_model, f"What is the capital of {country}?") for country in countries]
    short = {"max_gen_toks": 16}
    texts = babbling_model.generate_until([ask("generate_until", context, short) for context in contexts])
    assert texts == [write(babbling_model, context, **short) for context in contexts]
    assert len(set(texts)) == 5


def test_generation_is_cut_at_the_first_of_the_until_strings(harness_model):
    context = chat(harness_model, QUESTION)
    assert write(harness_model, context) == "The capital of France is Paris."
    assert write(harness_model, context, until=["Paris", " of", "Berlin", ""]) == "The capital"
    assert write(harness_model, context, until=" is") == "The capital of France"


def test_a_tasks_settings_take_precedence_over_the_models(babbling_model, babbler, demo_tokenizer, monkeypatch):
    def wanted(temperature: float) -> str:
        params = GenerationParams(gen_length=24, temperature=temperature, top_k=20, top_p=0.9)
        return generate(babbler, ["Once upon a time"], params, tokenizer=demo_tokenizer)[0].text

    monkeypatch.setattr(babbling_model, "_params", GenerationParams(gen_length=32, temperature=1.0))
    settings = {"max_gen_toks": 24, "top_k": 20, "top_p": 0.9}
    assert write(babbling_model, "Once upon a time", **settings) == wanted(1.0)
    assert write(babbling_model, "Once upon a time", **settings, do_sample=True, temperature=2.0) == wanted(2.0)
    assert write(babbling_model, "Once upon a time", **settings, do_sample=False) == wanted(0.0)
    assert len({wanted(0.0), wanted(1.0), wanted(2.0)}) == 3


def test_repeats_of_a_request_are_different_samples(babbling_model, babbler, demo_tokenizer):
    context = chat(babbling_model, "Tell me a story about a dog.")
    request = ask("generate_until", context, {"do_sample": True, "temperature": 2.0, "max_gen_toks": 24})
    params = [GenerationParams(gen_length=24, temperature=2.0, seed=seed) for seed in range(3)]
    wanted = [result.text for result in generate(babbler, [context] * 3, params, tokenizer=demo_tokenizer)]
    assert len(set(wanted)) == 3
    assert babbling_model.generate_until([request] * 3) == wanted


def test_settings_that_are_not_used_are_named_once(harness_model, caplog):
    warning_once.cache_clear()
    for _ in range(2):
        write(harness_model, QUESTION, num_beams=4, max_gen_toks=4)
    assert caplog.messages == ["generation_kwargs that LLaDA does not use are ignored: num_beams"]


def test_a_long_context_is_cut_from_the_left_with_one_warning(babbling_model, babbler, demo_tokenizer, caplog):
    warning_once.cache_clear()
    context, question = "one two three " * 300, "The capital of France is"
    ids = demo_tokenizer.encode(context + question)
    value, _ = score(babbling_model, context + question, " Paris")
    assert value == pytest.approx(estimate(babbler, ids[-511:], demo_tokenizer.encode(" Paris"), mc_num=1))
    (wanted,) = generate(babbler, [ids[-508:]], GenerationParams(gen_length=4), tokenizer=demo_tokenizer)
    assert write(babbling_model, context + question, max_gen_toks=4) == wanted.text
    assert caplog.messages == ["contexts are cut from the left to fit in 512 tokens"]


def test_an_answer_longer_than_the_model_is_an_error(harness_model):
    with pytest.raises(
        ValueError, match=r"the answer has 512 tokens .*shorter than the model's max_sequence_length, 512"
    ):
        write(harness_model, QUESTION, max_gen_toks=512)


def test_a_text_is_scored_in_windows_each_token_once(demo, demo_tokenizer):
    model = LLaDALM(pretrained=str(DEMO_FOLDER), device="cpu", mc_num=1)
    text = "one two three <|endoftext|> " * 50
    ids = demo_tokenizer.encode_plain(text)
    assert 511 < len(ids) < 1022
    first, rest = ids[:511], ids[511:]
    wanted = estimate(demo, [BOS_ID], first, mc_num=1) + estimate(demo, ids[-512 : -len(rest)], rest, mc_num=1)
    assert model.loglikelihood_rolling([ask("loglikelihood_rolling", text), ask("loglikelihood_rolling", "")]) == [
        wanted,
        0,
    ]


def test_the_written_template_encodes_to_the_ids_of_the_chat(harness_model, demo_tokenizer):
    turns = [("system", "Be short."), ("user", f" {QUESTION}\n"), ("assistant", "Paris."), ("user", "1 + 2?\n\n  Now.")]
    written = harness_model.apply_chat_template([{"role": role, "content": content} for role, content in turns])
    assert demo_tokenizer.encode(written) == demo_tokenizer.encode_chat([Message(*turn) for turn in turns])


def test_without_generation_prompt_the_last_turn_stays_open(harness_model, demo_tokenizer):
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "The capital of France is"}]
    written = harness_model.apply_chat_template(turns, add_generation_prompt=False)
    prompt = demo_tokenizer.encode_chat([Message("user", QUESTION)])
    assert demo_tokenizer.encode(written) == prompt + demo_tokenizer.encode("The capital of France is")


def test_a_tokenizer_that_reads_the_template_as_text_has_none(harness_model, monkeypatch):
    definition = json.loads((DEMO_FOLDER / "tokenizer.json").read_text())
    # Like LLaDA-8B-Base: the ids exist, but the file does not register them.
    definition["added_tokens"] = [token for token in definition["added_tokens"] if "header" not in token["content"]]
    monkeypatch.setattr(harness_model, "_tokenizer", Tokenizer(json.dumps(definition), vocab_size=126464))
    with pytest.raises(ValueError, match=r"--apply_chat_template: the tokenizer of .* has no chat template"):
        chat(harness_model, QUESTION)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("colour=red", "colour\n  Unexpected keyword argument"),
        ("mc_num=0", "mc_num\n  Input should be greater than 0"),
        ("logits_eos_inf=maybe", "logits_eos_inf\n  Input should be a valid boolean"),
        ("remasking=best", "remasking is 'best'; it must be one of"),
    ],
)
def test_arguments_that_break_a_rule_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        LLaDALM.create_from_arg_string(f"pretrained={DEMO_FOLDER},{arguments}")


def test_a_checkpoint_without_a_tokenizer_is_an_error():
    with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
        LLaDALM(pretrained=str(GOLDEN / "models" / "tiny-mha"))


def test_arguments_may_be_strings():
    arguments = {"device": "cpu", "batch_size": "3", "gen_length": "16", "logits_eos_inf": "true", "steps": None}
    model = LLaDALM(pretrained=str(DEMO_FOLDER), **arguments)
    assert model._params == GenerationParams(gen_length=16, logits_eos_inf=True)
    assert model._batch_size == 3


def test_model_args_take_precedence_over_what_the_command_line_adds():
    arguments = {"pretrained": str(DEMO_FOLDER), "device": "cpu", "batch_size": 2}
    model = LLaDALM.create_from_arg_obj(arguments, {"device": "cuda:0", "batch_size": 1, "max_batch_size": None})
    assert (model.device.type, model._batch_size) == ("cpu", 2)


def test_answers_are_cached_one_by_one(harness_model, monkeypatch, tmp_path):
    cached = CachingLM(harness_model, str(tmp_path / "cache.db"))
    requests = [ask("loglikelihood", "The capital of France is", f" {city}") for city in ("Paris", "Rome")]
    monkeypatch.setattr(harness_model, "_is_greedy", Mock(side_effect=[True, KeyboardInterrupt]))
    with pytest.raises(KeyboardInterrupt):
        cached.loglikelihood(requests)
    monkeypatch.setattr(harness_model, "_is_greedy", Mock(side_effect=[False]))
    assert [is_greedy for _, is_greedy in cached.loglikelihood(requests)] == [True, False]
    harness_model.set_cache_hook(CacheHook(None))
    cached.dbdict.close()


def test_only_the_first_process_shows_progress(harness_model, monkeypatch, capsys):
    score(harness_model, "The capital of France is", " Paris")
    assert "Running loglikelihood requests: 100%" in capsys.readouterr().err
    monkeypatch.setattr(harness_model, "_rank", 1)
    score(harness_model, "The capital of France is", " Paris")
    assert capsys.readouterr().err == ""


def test_a_task_of_choices_runs_offline(harness_model, offline):
    results = lm_eval.simple_evaluate(
        harness_model,
        tasks=["capitals_choice"],
        apply_chat_template=True,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        bootstrap_iters=0,
    )
    assert results["n-samples"]["capitals_choice"]["effective"] == 12
    assert results["results"]["capitals_choice"]["acc,none"] >= 0.9


def test_the_command_line_runs_a_task_of_texts(offline, monkeypatch, tmp_path):
    # Run as a script the module registers its class again; listing the harness's own 10,000 tasks takes seconds.
    monkeypatch.delitem(model_registry._objs, "llada")
    monkeypatch.setattr("lm_eval.tasks.TaskManager", partial(TaskManager, include_defaults=False))
    monkeypatch.setattr("lm_eval.__main__.setup_logging", lambda: None)
    arguments = {
        "--model": "llada",
        "--model_args": f"pretrained={DEMO_FOLDER}",
        "--include_path": TASKS,
        "--tasks": "capitals_generate",
        "--batch_size": 12,
        "--output_path": tmp_path / "results.json",
    }
    flat = [str(part) for pair in arguments.items() for part in pair]
    monkeypatch.setattr("sys.argv", ["lm_eval", *flat, "--apply_chat_template"])
    runpy.run_path(lm_eval_adapter.__file__, run_name="__main__")
    (file,) = tmp_path.glob("results*.json")
    assert json.loads(file.read_text())["results"]["capitals_generate"]["exact_match,none"] >= 0.9
