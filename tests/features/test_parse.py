"""JSON and TOML that anybody may have written."""

import struct
import zlib

import pytest

from cli.options import UsageError
from features.errors import SlideError
from features.files.parse import parse_json, parse_toml
from features.tiles.folders import group_tiles, open_folder
from mil.errors import RunError
from mil.runs.run import open_run

DEEP = "[" * 60_000 + "]" * 60_000


def test_what_is_nested_too_deeply_is_a_value_error():
    assert parse_json('{"a": [1]}') == {"a": [1]}
    assert parse_toml("a = [1]") == {"a": [1]}
    for wrong in (DEEP, "{", '{"a": ' + DEEP + "}"):
        with pytest.raises(ValueError, match=r"nested too deeply|Expecting"):
            parse_json(wrong)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_toml(f"a = {DEEP}")


def test_deep_files_are_named(tmp_path):
    from cli.learn import CrossvalOptions
    from cli.options import build

    (tmp_path / "run.json").write_text('{"format": ' + DEEP + "}")
    with pytest.raises(RunError, match="nested too deeply"):
        open_run(tmp_path)
    for name in ("run.json", "settings.toml"):
        (tmp_path / name).write_text(f"folds = {DEEP}" if name.endswith("toml") else DEEP)
        with pytest.raises(UsageError, match=rf"{name}: cannot be read \(its brackets are nested"):
            build(CrossvalOptions, {}, tmp_path / name)


def test_an_image_with_far_too_many_pixels_is_named(tmp_path):
    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 70_000, 50_000, 8, 2, 0, 0, 0)
    path = tmp_path / "s" / "s-0-0.png"
    path.parent.mkdir()
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    [files] = group_tiles(tmp_path).values()
    with pytest.raises(SlideError, match=r"s-0-0.png: has far more pixels than a tile"):
        open_folder(files, mpp=0.5, tile_px=224)
