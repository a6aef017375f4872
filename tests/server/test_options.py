"""The command line: what help says, what is refused, and which of option and variable an error names."""

import re

import pytest

from server.options import GROUPS, read_settings
from server.settings import Settings


def refused(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        read_settings(words)
    assert ended.value.code == 2
    return capsys.readouterr().err.removeprefix("llada-server: ").rstrip("\n")


def shown(capsys, word):
    with pytest.raises(SystemExit) as ended:
        read_settings([word])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_every_option_is_in_one_group():
    grouped = [field for fields in GROUPS.values() for field in fields]
    assert sorted(grouped) == sorted(Settings.model_fields)


def test_help_names_every_option_once_with_one_default(capsys):
    text = re.sub(r"\s+", " ", shown(capsys, "--help"))
    for field in Settings.model_fields:
        assert text.count(f" --{field.replace('_', '-')} ") >= 1
    for option in re.split(r" --(?=[a-z])", text)[1:]:
        assert option.count("(default") <= 1, option
    assert not re.search(r"ByteSize|list\[|\bstr\b|\bint\b|None", text)
    assert "LLADA_MAX_QUEUE=64" in text
    assert "LLADA_API_KEY=one,two" in text


def test_version_is_shown(capsys):
    assert re.fullmatch(r"llada-server \d+\.\d+\.\d+\n", shown(capsys, "--version"))


@pytest.mark.parametrize(
    ("word", "meant"), [("--max-quue", "--max-queue"), ("--modle=x", "--model"), ("--api_keys", "--api-key")]
)
def test_a_misspelt_option_suggests_the_nearest(capsys, word, meant):
    assert refused(capsys, word, "1").endswith(f"did you mean {meant}?")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cors-origin", "nonsense"], "--cors-origin is ['nonsense']: 'nonsense' is no origin"),
        (["--cors-origin", "https://a.example/path"], "'https://a.example/path' is no origin"),
        (["--cors-origin", "a.example:80"], "'a.example:80' is no origin"),
        (["--model-threads", "4096"], "--model-threads is '4096': this process may use"),
        (["--threads", "4096"], "--threads is '4096': this process may use"),
        (["--threads", "0"], "--threads is '0'"),
        (["--kv-cache-memory", "lots"], "--kv-cache-memory is 'lots'"),
        (["--api-key", "schl\u00fcssel"], "an API key must be of visible ASCII characters"),
        (["--api-key", "two words"], "an API key must be of visible ASCII characters"),
        (["--api-key", ""], "has an empty entry"),
        (["--root-path", "llm"], "must start with a slash, as /llm"),
        (["stray"], "unexpected argument stray"),
    ],
)
def test_a_value_that_cannot_work_is_refused_at_the_start(capsys, words, message):
    assert message in refused(capsys, *words)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("LLADA_DTYPE", "fp16", "LLADA_DTYPE is 'fp16': it must be 'auto', "),
        ("LLADA_MAX_QUEUE", "-3", "LLADA_MAX_QUEUE is '-3'"),
        ("LLADA_CORS_ORIGIN", "https://a.example,b", "LLADA_CORS_ORIGIN is"),
    ],
)
def test_an_error_names_the_variable_that_was_used(capsys, monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    assert refused(capsys).startswith(message)


def test_a_key_is_not_repeated_in_an_error(capsys):
    message = refused(capsys, "--api-key", "secret word")
    assert message == "--api-key: an API key must be of visible ASCII characters: others can't be sent in a header"


def test_an_option_takes_precedence_over_its_variable(monkeypatch):
    monkeypatch.setenv("LLADA_PORT", "1")
    monkeypatch.setenv("LLADA_API_KEY", "one,two")
    settings = read_settings(["--port", "2", "--served_model_name", "mine"])
    assert (settings.port, settings.api_key, settings.served_model_name) == (2, ["one", "two"], "mine")


def test_several_model_threads_have_one_core_each(capsys, monkeypatch):
    monkeypatch.setattr("server.settings.num_cores", lambda: 4)
    assert "each uses one core, and threads is 2" in refused(capsys, "--threads", "2", "--model-threads", "2")
    assert read_settings(["--threads", "1", "--model-threads", "2"]).model_threads == 2


def test_lists_repeat(monkeypatch):
    settings = read_settings(["--cors-origin", "http://a:1", "--cors-origin", "*", "--allowed-host", "box.lan"])
    assert (settings.cors_origin, settings.allowed_host) == (["http://a:1", "*"], ["box.lan"])


def test_a_misspelt_variable_is_warned_of_and_one_of_another_program_is_not(capsys, monkeypatch):
    monkeypatch.setenv("LLADA_MODLE", "x")
    monkeypatch.setenv("LLADA_SERVER", "http://x")
    read_settings([])
    assert capsys.readouterr().err == "llada-server: warning: LLADA_MODLE is no option; did you mean LLADA_MODEL?\n"


def test_options_come_from_secret_files_unless_set_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("LLADA_SECRETS_DIR", str(tmp_path))
    (tmp_path / "llada_api_key").write_text("one,two\n")
    (tmp_path / "llada_max_queue").write_text("3")
    monkeypatch.setenv("LLADA_MAX_QUEUE", "4")
    settings = read_settings([])
    assert (settings.api_key, settings.max_queue) == (["one", "two"], 4)


def test_a_server_whose_secrets_cannot_be_read_does_not_start(capsys, monkeypatch, tmp_path):
    folder = tmp_path / "secrets"
    monkeypatch.setenv("LLADA_SECRETS_DIR", str(folder))
    assert refused(capsys) == f"LLADA_SECRETS_DIR: {folder}: No such file or directory"
    folder.mkdir()
    (folder / "llada_api_key").touch()
    assert refused(capsys) == "the secret file llada_api_key: has an empty entry"
    (folder / "llada_api_key").write_text("one\ntwo")
    assert refused(capsys).startswith("the secret file llada_api_key: an API key must be of visible ASCII")
