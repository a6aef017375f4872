from training.launch import Launch, read_launch


def test_without_torchrun_there_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert read_launch() == Launch(0, 1, 0, 1)
    assert read_launch().is_main


def test_torchruns_variables_are_read(monkeypatch):
    for name, value in {"RANK": "9", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    assert read_launch() == Launch(rank=9, world_size=16, local_rank=1, local_world_size=8)
    assert not read_launch().is_main
