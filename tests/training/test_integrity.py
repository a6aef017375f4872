import pytest

from tests.training.damage import DAMAGES
from training.integrity import DamagedError, digests_of, read_sealed, require_intact, write_sealed


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(range(1, 200)) * 50)
    (tmp_path / "part" / "note").write_bytes(b"x" * 10)
    write_sealed(tmp_path / "sealed.json", {"step": 3, "files": digests_of(tmp_path, but="sealed.json")})
    return tmp_path


def check(folder):
    require_intact(folder, read_sealed(folder / "sealed.json")["files"], but="sealed.json")


def test_what_was_written_is_intact(folder):
    check(folder)
    assert read_sealed(folder / "sealed.json")["step"] == 3
    assert set(digests_of(folder, but="sealed.json")) == {"weights.bin", "part/note"}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["weights.bin", "part/note", "sealed.json"])
def test_every_damage_to_every_file_is_named(folder, name, damage):
    file = folder / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DamagedError, match=f"{name}: is damaged"):
        check(folder)


@pytest.mark.parametrize("name", ["weights.bin", "part/note", "sealed.json"])
def test_a_file_that_is_missing_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DamagedError, match=f"{name}: is missing"):
        check(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{}", b'{"step": 3}', b"\xff", b"[" * 100_000])
def test_a_note_that_is_something_else_is_damaged(tmp_path, content):
    (tmp_path / "sealed.json").write_bytes(content)
    with pytest.raises(DamagedError, match=r"sealed.json: is damaged"):
        read_sealed(tmp_path / "sealed.json")
