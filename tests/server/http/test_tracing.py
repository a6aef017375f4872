"""OpenTelemetry spans, as a collector receives them."""

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.server.conftest import serving

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
BODY = {"messages": [{"role": "user", "content": "Secret?"}], "max_tokens": 4, "ignore_eos": True}


@pytest.fixture
def collector():
    """The address of an OTLP collector, and the requests that it has received."""
    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


def attributes(item):
    def value_of(value):
        kind = value.WhichOneof("value")
        return [value_of(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)

    return {attribute.key: value_of(attribute.value) for attribute in item.attributes}


def test_a_requests_span_has_those_of_queue_and_generation_below_it(demo, demo_tokenizer, collector, monkeypatch):
    url_of_collector, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url_of_collector)
    with serving(demo, demo_tokenizer, served_model_name="demo") as url:
        for path in ("/health", "/metrics"):
            assert httpx.get(url + path).status_code == 200
        answer = httpx.post(f"{url}/v1/chat/completions", json=BODY, headers=HEADERS, timeout=30).json()
    # The server sends what it has when it ends.
    (resource,) = [spans for request in received for spans in request.resource_spans]
    assert attributes(resource.resource)["service.name"] == "llada-server"
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    assert spans.keys() == {"POST /v1/chat/completions", "queue", "chat demo"}
    server, queue, chat = (spans[name] for name in ("POST /v1/chat/completions", "queue", "chat demo"))
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE_ID}
    assert server.parent_span_id.hex() == PARENT_ID
    assert queue.parent_span_id == chat.parent_span_id == server.span_id
    assert attributes(server)["http.response.status_code"] == 200
    (commit,) = chat.events
    moments = [
        server.start_time_unix_nano, queue.start_time_unix_nano, queue.end_time_unix_nano, commit.time_unix_nano,
        chat.end_time_unix_nano,
    ]  # fmt: skip
    # FastAPI reads another clock, a little earlier or later.
    assert all(earlier <= later + 50_000_000 for earlier, later in pairwise(moments))
    assert chat.start_time_unix_nano == queue.end_time_unix_nano
    assert attributes(chat) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llada",
        "gen_ai.request.model": "demo",
        "gen_ai.response.model": "demo",
        "gen_ai.response.id": answer["id"],
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": answer["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": answer["usage"]["completion_tokens"],
        "llada.denoising_steps": 4,
    }
    assert "Secret" not in str(received)


@pytest.mark.parametrize("off", [{}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_without_a_place_to_send_them_there_are_no_spans(tiny, collector, monkeypatch, off):
    url_of_collector, received = collector
    for name, value in off.items():
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url_of_collector)
        monkeypatch.setenv(name, value)
    with serving(tiny) as url:
        assert httpx.get(f"{url}/v1/models", headers=HEADERS).status_code == 200
    assert received == []


def test_without_the_extra_the_server_says_so_once_and_works(tiny, monkeypatch, caplog):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with serving(tiny) as url:
        assert httpx.get(f"{url}/v1/models", headers=HEADERS).status_code == 200
    (record,) = [record for record in caplog.records if record.name == "server.http.tracing"]
    assert record.getMessage() == (
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, but traces need the extra: pip install 'llada[otel]'"
    )
