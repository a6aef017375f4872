"""The pages for people, and the files that they load."""

import re
from typing import get_args

import pytest

from llada_core.sampling.params import ORIGIN, Remasking


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_names_no_other_host_and_its_policy_allows_none(tiny_client, path):
    answer = tiny_client.get(path)
    assert answer.headers["content-type"].startswith("text/html")
    assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]*"', answer.text) == []
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; " in policy
    assert "http" not in policy and "unsafe-eval" not in policy and "*" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff" and "referrer-policy" in answer.headers


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/static/app.js", "/static/style.css", "/static/swagger/swagger-ui-bundle.js"]
)
def test_a_file_is_asked_for_again_and_sent_only_if_it_changed(tiny_client, path):
    answer = tiny_client.get(path)
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-cache"
    if path.startswith("/static"):
        again = tiny_client.get(path, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304 and not again.content


@pytest.mark.parametrize("path", ["/redoc", "/static/swagger", "/static/nothing.js", "/static/../cli.py"])
def test_what_is_not_there_is_a_404(tiny_client, path):
    assert tiny_client.get(path).status_code == 404


def test_every_module_that_the_page_imports_is_served(tiny_client):
    seen, waiting = set(), ["app.js"]
    while waiting:
        name = waiting.pop()
        answer = tiny_client.get(f"/static/{name}")
        assert answer.status_code == 200, name
        seen.add(name)
        waiting += set(re.findall(r'^import .* from "\./(.*)";$', answer.text, re.MULTILINE)) - seen
    assert len(seen) > 20


def test_the_form_offers_every_order_of_remasking_but_the_one_that_a_schedule_brings_along(tiny_client):
    (select,) = re.findall(r'<select id="remasking".*?</select>', tiny_client.get("/").text, re.DOTALL)
    assert set(re.findall(r'value="(.*?)"', select)) == set(get_args(Remasking)) - {ORIGIN}
