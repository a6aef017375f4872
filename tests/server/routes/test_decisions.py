"""`/v1/decisions` and `/v1/systemone`: their answers, what they refuse, and the clients they are made for."""

import json
import logging

import httpx
import openai
import pytest
from openai.types import decision as openai_types

from llada_core.decisions.labels import Labels
from llada_core.decisions.prompts import encode_questions
from llada_core.decisions.question import Option, Question, predicate
from llada_core.decisions.reading import num_tokens, probabilities, read
from llada_core.text.tokenizer import Message
from tests.server.conftest import gauge, serving

INPUT = "The soup was cold and the waiter was rude."
PREDICATE = {"type": "predicate", "name": "satisfied", "instructions": "The guest is satisfied."}
CHOICE = {
    "type": "choice",
    "instructions": "What is it about?",
    "choices": [{"value": "food", "description": "what was eaten"}, {"value": True}, {"value": "true"}],
}
LEVELS = [{"label": "low"}, {"label": "high"}]
SCORE = {"type": "score", "name": "urgency", "instructions": "How urgent?", "levels": LEVELS}
QUESTIONS = [PREDICATE, CHOICE, SCORE]
STATE = {"message": "WIN a FREE telephone, click here!", "from": ["Zoë", None]}
NAMED = {
    "spam": {"type": "noul", "instructions": "Is it spam?", "criteria": {"true": "an advertisement"}},
    "plain": {"type": "noul"},
    "tone": {
        "type": "choice",
        "instructions": {"ask": "tone"},
        "criteria": {"calm": None, "pushy": {"as": "seller"}},
    },
    "urgency": {"type": "score", "instructions": "How urgent?", "criteria": ["can wait", {"when": "this week"}, "now"]},
}


@pytest.fixture(scope="module")
def client(live_server):
    with httpx.Client(base_url=live_server, timeout=60) as client:
        yield client


def ask(client, route="/v1/decisions", **body):
    answer = client.post(route, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def expect(demo, demo_tokenizer):
    """The probabilities that the core reads."""
    labels = Labels.of(demo_tokenizer)

    def expected(conversation, *questions, order_averages=2, temperature=1.0):
        encoded = encode_questions(demo_tokenizer, conversation, questions, labels)
        logits = read(demo, labels, encoded, order_averages=order_averages)
        return [pytest.approx(probabilities(each, temperature).tolist(), abs=1e-5) for each in logits]

    return expected


CORE_QUESTIONS = (
    predicate("The guest is satisfied."),
    Question("What is it about?", (Option("food", "what was eaten"), Option("true"), Option("true"))),
    Question("How urgent?", (Option("low"), Option("high"))),
)


@pytest.mark.parametrize("settings", [{}, {"order_averages": 1}, {"order_averages": 8, "temperature": 0.5}], ids=str)
def test_probabilities_are_those_of_the_core(client, expect, settings):
    answer = ask(client, input=INPUT, questions=QUESTIONS, **settings)
    yes, choice, score = answer["answers"]
    expected = expect([Message("user", INPUT)], *CORE_QUESTIONS, **settings)
    assert [yes["probability"], 1 - yes["probability"]] == expected[0]
    assert [each["probability"] for each in choice["probabilities"]] == expected[1]
    assert [each["probability"] for each in score["probabilities"]] == expected[2]
    assert (answer["order_averages"], answer["temperature"]) == (
        settings.get("order_averages", 2),
        settings.get("temperature", 1.0),
    )


def test_an_answer_says_what_follows_from_its_probabilities(client):
    yes, choice, score = ask(client, input=INPUT, questions=QUESTIONS, temperature=0.1)["answers"]
    assert yes.keys() == {"type", "name", "probability"}
    assert (yes["name"], choice["name"], score["name"]) == ("satisfied", None, "urgency")
    assert [each["value"] for each in choice["probabilities"]] == ["food", True, "true"]
    likeliest = max(choice["probabilities"], key=lambda each: each["probability"])
    assert (choice["choice"], type(choice["choice"])) == (likeliest["value"], type(likeliest["value"]))
    assert choice["confidence"] == pytest.approx((likeliest["probability"] - 1 / 3) * 1.5)
    assert [(each["label"], each["value"]) for each in score["probabilities"]] == [("low", 0), ("high", 1)]
    assert score["score"] == pytest.approx(score["probabilities"][1]["probability"])
    for question in (choice, score):
        assert sum(each["probability"] for each in question["probabilities"]) == pytest.approx(1, abs=1e-9)
        assert 0 <= question["confidence"] <= 1


def test_the_openai_client_reads_every_type_of_answer(live_server):
    with openai.OpenAI(base_url=f"{live_server}/v1", api_key="unused", max_retries=0) as client:
        answer = client.decisions.create(
            model="llada-demo",
            input=[
                {"role": "developer", "content": [{"type": "input_text", "text": "Judge."}]},
                {"role": "user", "content": [{"type": "input_json", "data": {"soup": "cold"}}], "type": "message"},
                {"role": "assistant", "content": [{"type": "output_text", "text": "Sorry!"}], "phase": "final_answer"},
            ],
            questions=QUESTIONS,
            prompt_cache_key="a",
            prompt_cache_options={"mode": "explicit", "ttl": "30m"},
            safety_identifier="b",
            extra_body={"order_averages": 1},
        )
        assert [type(each) for each in answer.answers] == [
            openai_types.AnswerAnswerResourcePredicate,
            openai_types.AnswerAnswerResourceChoice,
            openai_types.AnswerAnswerResourceScore,
        ]
        assert answer.model == "llada-demo"
        assert answer.usage.input_tokens == answer.usage.total_tokens > 0 == answer.usage.output_tokens
        # Raises where a field is missing or has another type.
        openai_types.Decision.model_validate(answer.model_dump(), strict=True)
        with pytest.raises(openai.BadRequestError, match=r"questions\.0\.choices is missing") as caught:
            client.decisions.create(model="llada-demo", input="x", questions=[{"type": "choice", "instructions": "y"}])
        assert caught.value.param == "questions"


def test_a_conversation_is_asked_about_in_its_turns(client, expect):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    answer = ask(client, input=[{"role": "system", "content": "Judge."}, *turns], questions=[PREDICATE])
    conversation = [Message("system", "Judge."), Message("user", "Hi"), Message("assistant", "Hello!")]
    (expected,) = expect(conversation, CORE_QUESTIONS[0])
    assert [answer["answers"][0]["probability"], 1 - answer["answers"][0]["probability"]] == expected


def test_a_text_is_a_single_turn_of_the_user(client):
    parts = [{"type": "input_text", "text": piece} for piece in (INPUT[:9], INPUT[9:])]
    for content in (INPUT, parts):
        turn = {"role": "user", "content": content}
        assert ask(client, input=[turn], questions=QUESTIONS) == ask(client, input=INPUT, questions=QUESTIONS)


def test_four_hundred_questions_are_answered_as_each_alone(client, demo_tokenizer):
    questions = [{"type": "predicate", "name": f"{number}", "instructions": f"{number}?"} for number in range(400)]
    together = ask(client, input="x", questions=questions, order_averages=1)
    assert [each["name"] for each in together["answers"]] == [each["name"] for each in questions]
    for number in (0, 199, 399):
        (alone,) = ask(client, input="x", questions=[questions[number]], order_averages=1)["answers"]
        assert together["answers"][number]["probability"] == pytest.approx(alone["probability"], abs=1e-5)
    assert together["usage"]["forward_passes"] == 400


def test_nothing_is_drawn(client):
    first, second = (ask(client, input=INPUT, questions=QUESTIONS) for _ in range(2))
    assert first == second


def test_usage_and_metrics_count_what_goes_through_the_model(demo, demo_tokenizer):
    encoded = encode_questions(demo_tokenizer, [Message("user", INPUT)], CORE_QUESTIONS, Labels.of(demo_tokenizer))
    tokens = [num_tokens(question) for question in encoded]
    with serving(demo, demo_tokenizer) as url, httpx.Client(base_url=url, timeout=60) as client:
        usage = ask(client, input=INPUT, questions=QUESTIONS, order_averages=8)["usage"]
        # Two options have two orders and three have six; one that would occur twice occurs once.
        assert usage["input_tokens"] == 2 * tokens[0] + 6 * tokens[1] + 2 * tokens[2]
        assert usage["forward_passes"] == 2 + 6 + 2
        assert gauge(url, "llada_likelihood_model_tokens_total") == usage["input_tokens"]
        assert gauge(url, "llada_decided_questions_total") == 3


def test_the_checkpoints_temperature_holds_unless_a_request_has_its_own(demo, demo_tokenizer):
    with (
        serving(demo, demo_tokenizer, decision_temperature=4.0) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        warm, own = (ask(client, input=INPUT, questions=QUESTIONS, **extra) for extra in ({}, {"temperature": 1}))
    with serving(demo, demo_tokenizer) as url, httpx.Client(base_url=url, timeout=60) as client:
        assert ask(client, input=INPUT, questions=QUESTIONS, temperature=4) == warm
        assert ask(client, input=INPUT, questions=QUESTIONS) == own != warm


def test_who_asked_is_logged(demo, demo_tokenizer, caplog):
    body = {"input": INPUT, "questions": [PREDICATE], "safety_identifier": "alice", "prompt_cache_key": "soups"}
    # The line is written after the answer is sent, and before the server has ended.
    with caplog.at_level(logging.INFO, "server"), serving(demo, demo_tokenizer) as url:
        assert httpx.post(f"{url}/v1/decisions", json=body, timeout=30).status_code == 200
    (line,) = [record.getMessage() for record in caplog.records if "alice" in record.getMessage()]
    assert "soups" in line and "soup was" not in line


def test_a_failing_model_fails_only_the_decision(demo, demo_tokenizer, monkeypatch):
    head = type(demo).head
    with serving(demo, demo_tokenizer) as url:
        monkeypatch.setattr(type(demo), "head", lambda self, hidden: head(self, hidden) * float("nan"))
        body = {"input": INPUT, "questions": QUESTIONS}
        assert httpx.post(f"{url}/v1/decisions", json=body, timeout=30).status_code == 500
        monkeypatch.setattr(type(demo), "head", head)
        assert httpx.post(f"{url}/v1/decisions", json=body, timeout=30).status_code == 200


def choice_of(*values, **fields):
    return {**CHOICE, "choices": [{"value": value} for value in values], **fields}


def part(**fields):
    return [{"role": "user", "content": [{"type": "input_text", "text": "x"}, fields]}]


CALL = {"type": "function_call", "arguments": "{}", "call_id": "1", "name": "f"}
BAD_QUESTIONS = [
    ([], "questions is []"),
    ([PREDICATE] * 401, "at most 400"),
    ([PREDICATE, {"type": "noul"}], "questions.1 is {'type': 'noul'}; it must be an object whose type is predicate, "),
    ([PREDICATE, "x"], "questions.1 is 'x'; it must be an object whose type"),
    ([{"type": "predicate", "instructions": ""}], "questions.0.instructions is ''; it must not be empty"),
    ([{"type": "predicate"}], "questions.0.instructions is missing"),
    ([{**PREDICATE, "choices": []}], "questions.0.choices is not a field"),
    ([{**PREDICATE, "name": 3}], "questions.0.name is 3"),
    ([choice_of("a")], "questions.0.choices is [{'value': 'a'}]; it must have at least 2 items"),
    ([choice_of("a", 3)], "questions.0.choices.1.value is 3; it must be a string or a boolean"),
    ([choice_of("a", "")], "questions.0.choices.1.value is ''; it must not be empty"),
    ([PREDICATE, choice_of("a", True, "b", "a")], "questions.1.choices is [{'value': 'a'}, {'value': True}, "),
    ([choice_of(*map(str, range(55)))], "questions.0.choices has 55 entries; it must have at most 54"),
    ([choice_of(*map(str, range(256)))], "at most 255 items"),
    ([choice_of("a", "b", values=[1])], "questions.0.values is not a field"),
    ([{**SCORE, "levels": [{"label": "x"}]}], "questions.0.levels is [{'label': 'x'}]; it must have at least 2 items"),
    ([{**SCORE, "levels": [{"label": "x"}] * 60}], "questions.0.levels has 60 entries; it must have at most 54"),
    ([{**PREDICATE, "instructions": [{"type": "input_image"}]}], "instructions.0 is {'type': 'input_image'}; it must"),
    ([PREDICATE, {**PREDICATE, "instructions": "word " * 600}], "questions.1, with its answer, 6"),
    ([PREDICATE, {**PREDICATE, "instructions": "word " * 6000}], "input with questions.1 has 300"),
]
BAD_INPUTS = [
    ("", "input is ''; it must not be empty"),
    (3, "input is 3; it must be a string or a list of messages"),
    ([], "input is []"),
    ([CALL], "input.0.type is 'function_call'; it must be 'message'"),
    (
        [{"type": "custom_tool_call_output", "call_id": "1", "output": "x"}],
        "'custom_tool_call_output'; it must be 'message'",
    ),
    (part(type="input_image"), "input.0.content.1 is {'type': 'input_image'}; it must be an object whose type is "),
    (part(type="input_json", data=3), "input.0.content.1.data is 3; it must be an object or a list"),
    (part(type="input_json", data={"a": "\ud800"}), "input.0.content.1.data is {'a': '\\ud800'}; it must hold Unicode"),
    (part(type="input_json", data={"a": float("inf")}), "it must hold finite numbers only"),
    ([{"role": "tool", "content": "x"}], "input.0.role is 'tool'"),
    ("word " * 600, "input has 6"),
]


@pytest.mark.parametrize(
    ("changes", "param", "message"),
    [
        *(({"questions": questions}, "questions", message) for questions, message in BAD_QUESTIONS),
        *(({"input": value}, "input", message) for value, message in BAD_INPUTS),
        ({"order_averages": 0}, "order_averages", "greater than or equal to 1"),
        ({"order_averages": 9}, "order_averages", "less than or equal to 8"),
        ({"temperature": 0}, "temperature", "greater than or equal to 0.001"),
        ({"max_tokens": 4}, "max_tokens", "not a field"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_is_refused_by_its_path(client, changes, param, message):
    # As httpx would not write it: half a surrogate pair, infinity.
    body = json.dumps({"input": INPUT, "questions": QUESTIONS, **changes})
    answer = client.post("/v1/decisions", content=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert message in error["message"]


@pytest.mark.parametrize(
    ("changes", "param", "message"),
    [
        ({"state": ""}, "state", "state is ''"),
        ({"state": None}, "state", "state is missing"),
        ({"state": 3}, "state", "it must be a string, an object or a list"),
        ({"questions": {}}, "questions", "questions is {}; it must have at least 1 item"),
        ({"questions": {f"{n}": {"type": "noul"} for n in range(401)}}, "questions", "must have at most 400 items"),
        ({"questions": {"a": {"type": "predicate"}}}, "questions", "questions.a is {'type': 'predicate'}"),
        ({"questions": {"a": {"type": "choice"}}}, "questions", "questions.a.criteria is missing"),
        ({"questions": {"a": {"type": "choice", "criteria": {"b": None}}}}, "questions", "at least 2 items"),
        (
            {"questions": {"a": {"type": "choice", "criteria": {"b": 3, "c": None}}}},
            "questions",
            "questions.a.criteria.b",
        ),
        (
            {"questions": {"a": {"type": "score", "criteria": ["x", None]}}},
            "questions",
            "questions.a.criteria.1 is None",
        ),
        ({"questions": {"a": {"type": "score", "criteria": ["x"] * 55}}}, "questions", "questions.a.criteria has 55"),
        ({"questions": {"a": {"type": "noul", "criteria": {"maybe": "x"}}}}, "questions", "questions.a.criteria.maybe"),
        ({"questions": {"a": {"type": "noul", "instructions": "word " * 600}}}, "questions", "and questions.a, with"),
        ({"assets": {"img-1": {"data_base64": "AA"}}}, "assets", "it must be {} or absent"),
        ({"stream": True}, "stream", "not a field"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_systemone_input_is_refused_by_its_path(client, changes, param, message):
    answer = client.post("/v1/systemone", json={"state": STATE, "questions": NAMED, **changes})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), error
    assert message in error["message"]


def test_without_a_tokenizer_there_are_no_decisions(tiny_client):
    for route, field, body in (
        ("/v1/decisions", "input", {"input": "x", "questions": [PREDICATE]}),
        ("/v1/systemone", "state", {"state": "x", "questions": {"a": {"type": "noul"}}}),
    ):
        answer = tiny_client.post(route, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
        assert "no tokenizer" in answer.json()["error"]["message"]


def test_systemone_answers_as_transformers_does(client, expect):
    from transformers.cli.serving.systemone import SystemOneRequest
    from transformers.decision import DecisionConfig, parse_questions

    body = {"model": "llada-demo", "state": STATE, "questions": NAMED, "assets": {}}
    SystemOneRequest.model_validate(body, strict=True)
    answer = ask(client, "/v1/systemone", **body)
    state = '{"message": "WIN a FREE telephone, click here!", "from": ["Zoë", null]}'
    expected = expect(
        [Message("user", state)],
        predicate("Is it spam?", yes="an advertisement"),
        predicate(""),
        Question('{"ask": "tone"}', (Option("calm"), Option("pushy", '{"as": "seller"}'))),
        Question("How urgent?", (Option("can wait"), Option('{"when": "this week"}'), Option("now"))),
    )
    assert answer.keys() == {"model", "answers", "usage"}
    assert answer["usage"].keys() == {"input_tokens", "output_tokens"}
    assert list(answer["answers"]) == list(NAMED)
    for question, of_question in zip(parse_questions(NAMED, DecisionConfig()), expected, strict=True):
        ours = answer["answers"][question.name]
        read_here = (
            list(ours["probabilities"].values()) if "probabilities" in ours else [ours["noul"], 1 - ours["noul"]]
        )
        assert read_here == of_question
        assert ours == {
            name: value if isinstance(value, dict | str) else pytest.approx(value)
            for name, value in question.answer(read_here).items()
        }
