"""A file is the old one or the new one, and nothing lies beside it."""

import pytest

from features.files.atomic import atomic_path, write_atomic


@pytest.mark.parametrize("content", ["Größe\n", b"\x00\xff", memoryview(b"seen")])
def test_a_file_contains_what_was_written(tmp_path, content):
    path = tmp_path / "new" / "folder" / "file"
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else bytes(content))
    assert list(path.parent.iterdir()) == [path]


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def cut_off(temporary):
        temporary.write_text("half of the ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        cut_off(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
