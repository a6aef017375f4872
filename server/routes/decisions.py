"""`POST /v1/decisions` and `POST /v1/systemone`: typed questions, answered with probabilities read at masks."""

from fastapi import APIRouter, Request

from llada_core.decisions.reading import probabilities
from server.http.body import BoundedRoute
from server.http.sse import while_connected
from server.replies.decision_answers import decision_answer, systemone_answer
from server.replies.decisions import usage_of
from server.replies.usage import Usage
from server.schemas.decision_answers import Decision, DecisionUsage, SystemOne, SystemOneUsage
from server.schemas.decisions import AnyDecisionRequest, DecisionRequest
from server.schemas.systemone import SystemOneRequest
from server.service import client_of, log_who_asked, service_of

router = APIRouter(route_class=BoundedRoute)


@router.post("/v1/decisions")
async def decide(body: DecisionRequest, request: Request) -> Decision:
    """Answer questions about an input, each with a probability for every answer."""
    found, temperature, usage = await _ask(body, request)
    return Decision(
        model=service_of(request).settings.model_name,
        answers=[decision_answer(question, each) for question, each in zip(body.questions, found, strict=True)],
        usage=DecisionUsage(**usage.as_decision()),
        order_averages=body.order_averages,
        temperature=temperature,
    )


@router.post("/v1/systemone")
async def systemone(body: SystemOneRequest, request: Request) -> SystemOne:
    """Answer named questions about a state, each with a probability for every answer."""
    found, _, usage = await _ask(body, request)
    named = zip(body.questions.items(), found, strict=True)
    return SystemOne(
        model=service_of(request).settings.model_name,
        answers={name: systemone_answer(question, each) for (name, question), each in named},
        usage=SystemOneUsage(input_tokens=usage.prompt_tokens, output_tokens=0),
    )


async def _ask(body: AnyDecisionRequest, request: Request) -> tuple[list[list[float]], float, Usage]:
    """The probabilities of each question's options, the temperature, and what went through the model."""
    service, client = service_of(request), client_of(request)
    service.check_model(body.model)
    log_who_asked(body)
    # Before work that a refusal would waste.
    service.running.require_room(client, 1)
    asked = body.asked()
    labels = service.decisions.require_labels(body, asked)
    encoded = await service.prompts.encode_questions(body, asked, labels)
    service.decisions.require_fitting(body, asked, encoded)
    parts = service.decisions.reading(labels, encoded, order_averages=body.order_averages)
    work = service.running.start_work(parts, client)
    logits = await while_connected(request, service.running.result_of(work), release=work.cancel)
    usage = usage_of(encoded, order_averages=body.order_averages)
    service.running.endings.report_choices([], usage)
    temperature = service.decisions.temperature if body.temperature is None else body.temperature
    return [probabilities(logits_OK, temperature).tolist() for logits_OK in logits], temperature, usage
