"""The routes on which the server describes itself."""


def test_models_health_readiness_version_and_page(tiny_client):
    item = tiny_client.get("/v1/models").json()["data"][0]
    assert item == tiny_client.get("/v1/models/tiny").json()
    assert (item["id"], item["max_model_len"], item["mask_token_id"], item["vocab_size"]) == ("tiny", 256, 319, 320)
    assert tiny_client.get("/health").status_code == 200
    assert tiny_client.get("/ready").status_code == 200
    assert tiny_client.get("/version").json()["version"]
    assert "<html" in tiny_client.get("/").text
    assert tiny_client.get("/openapi.json").status_code == 200


def test_every_metric_starts_with_llada_or_is_prometheus_own_and_has_no_colon(tiny_client):
    text = tiny_client.get("/metrics").text
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    assert names and all(name.startswith(("llada_", "process_", "python_")) and ":" not in name for name in names)
    assert {"llada_requests_running", "llada_requests_waiting"} <= names


def test_a_model_card_has_vllms_fields_too(tiny_client):
    (card,) = tiny_client.get("/v1/models").json()["data"]
    assert (card["root"], card["parent"], card["permission"]) == (card["id"], None, [])


def test_ping_is_health_and_load_counts_what_is_under_way(tiny_client):
    assert tiny_client.get("/ping").json() == tiny_client.post("/ping").json() == {"status": "ok"}
    assert tiny_client.get("/load").json() == {"server_load": 0}
