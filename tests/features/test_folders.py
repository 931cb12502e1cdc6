from types import SimpleNamespace

import numpy as np
import pytest
from making import noise, write_tiff
from PIL import Image

from features.bags.bag import read_bag
from features.errors import InputError, SlideError
from features.extraction.extract import extract
from features.extraction.jobs import JobSettings, find_tile_images, jobs_of_paths, jobs_of_rows
from features.recipe import Recipe
from features.tiles.folders import group_tiles, open_folder


def save(folder, name, picture=None):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(40, 40) if picture is None else picture).save(path)
    return path


def opened(*files, tile_px=40, mpp=0.5):
    return open_folder(tuple(files), mpp=mpp, tile_px=tile_px)


@pytest.mark.parametrize(
    ("name", "slide", "corner"),
    [
        ("s-10-20.png", "s", (10, 20)),
        ("s_10_20.png", "s", (10, 20)),
        ("s_x10_y20.png", "s", (10, 20)),
        ("s_X10_Y20.png", "s", (10, 20)),
        ("s_x10_y20_114.png", "s", (10, 20)),
        ("Viable___s-10-20.png", "s", (10, 20)),
        ("Viable___s-10-20_114.png", "s", (10, 20)),
        ("s-10-20_114.png", "s", (10, 20)),
        ("s_10_20-114.png", "s", (10, 20)),
        ("Case-4-C27-32431-19828_114.png", "Case-4-C27", (32431, 19828)),
        ("case-7-1024-2048.png", "case-7", (1024, 2048)),
        ("case_7_1024_2048.png", "case_7", (1024, 2048)),
        ("case-7-1024-2048_3.png", "case-7", (1024, 2048)),
        ("case-7_1024_2048.png", "case-7", (1024, 2048)),
        ("a b.c-0-0.png", "a b.c", (0, 0)),
    ],
)
def test_name_says_slide_and_corner(tmp_path, name, slide, corner):
    path = save(tmp_path, name)
    assert group_tiles(tmp_path) == {slide: (path,)}
    assert tuple(opened(path).grid.coords_l0[0]) == corner


@pytest.mark.parametrize("name", ["tile.png", "s-10.png", "s-a-b.png", "-10-20.png", "10-20.png"])
def test_name_without_a_place_is_refused_with_the_remedy(tmp_path, name):
    save(tmp_path, name)
    with pytest.raises(
        SlideError,
        match=r"-<y>\.png, or put those of each slide into a folder",
    ):
        group_tiles(tmp_path)


def test_tiles_are_grouped_by_slide_whatever_their_label_and_folder(tmp_path):
    names = ["A___s-0-0.png", "B___s-40-0.png", "deep/A___s-0-40.png", "A___t-0-0.png"]
    files = [save(tmp_path, name) for name in names]
    groups = group_tiles(tmp_path)
    assert list(groups) == ["s", "t"]
    assert groups["s"] == tuple(sorted(files[:3]))


def test_a_folder_names_its_tiles_where_they_do_not(tmp_path):
    for name in ("A/one.png", "A/two.png", "A/three.png", "B/64_0.png", "B/x0-y128.png"):
        save(tmp_path, name)
    for folder in ("site-1", "site-2"):
        save(tmp_path, f"{folder}/C/tile_0.png")
        save(tmp_path, f"{folder}/tile_0_0.png")  # once in every folder: no slide is called tile
    groups = group_tiles(tmp_path)
    assert list(groups) == ["A", "B", "site-1", "site-1/C", "site-2", "site-2/C"]
    tiles = open_folder(groups["A"], mpp=0.5, tile_px=40)
    assert tiles.grid.coords_l0.tolist() == [[0, 0], [40, 0], [0, 40]]  # side by side
    assert "such as one.png give no places" in tiles.note(0.5)
    placed = open_folder(groups["B"], mpp=0.5, tile_px=40)
    assert placed.grid.coords_l0.tolist() == [[64, 0], [0, 128]]
    assert placed.note(0.5) == ""


def test_a_stranger_among_tiles_is_named(tmp_path):
    for x in range(3):
        save(tmp_path, f"A/s-{x}-0.png")
    save(tmp_path, "A/overview.png")
    with pytest.raises(
        SlideError, match=r"overview\.png: its name gives no position, as those of 3 of"
    ):
        group_tiles(tmp_path)


def test_two_files_for_one_place_are_refused(tmp_path):
    for name in ("s-0-0.png", "again/s-0-0.png"):
        save(tmp_path, name)
    with pytest.raises(SlideError, match="has the same slide and position in its name"):
        group_tiles(tmp_path)


def test_previews_beside_slides_are_no_tiles(tmp_path):
    save(tmp_path, "previews/one.png")
    write_tiff(tmp_path / "a.tiff", [noise(300, 300)], mpp=0.5)
    assert find_tile_images(tmp_path) == {}
    (job,) = jobs_of_paths([tmp_path])
    assert (job.slide, job.from_tiles) == ("a", False)


def test_images_without_places_become_bags_that_say_so(tmp_path):
    for slide in ("A", "B"):
        for name in ("one.png", "two.png", "ten.png"):
            save(tmp_path / "tiles", f"{slide}/{name}", noise(32, 32, seed=len(slide + name)))
    settings = JobSettings(slide_mpp=0.5)
    jobs = jobs_of_paths([tmp_path / "tiles"], settings)
    assert [(job.slide, job.region) for job in jobs] == [("A", "no places"), ("B", "no places")]
    recipe = Recipe(backbone="resnet18", weights="random", mpp=0.5, tile=32)
    outcomes = extract(jobs, recipe, tmp_path / "store", device="cpu")
    assert {outcome.status for outcome in outcomes} == {"done"}
    bag = read_bag(tmp_path / "store" / "A.h5")
    assert (bag.recipe["region"], len(bag)) == ("no places", 3)
    row = SimpleNamespace(slide="A", case="c", mpp=None)
    assert jobs_of_rows([row], tmp_path / "tiles", settings)[0].files == jobs[0].files


def test_a_folder_of_tiles_that_are_wrongly_named_says_which(tmp_path):
    save(tmp_path, "tile.png")
    with pytest.raises(
        InputError, match=r"tile\.png: the file name does not give the tile's slide"
    ):
        jobs_of_paths([tmp_path])


def test_a_check_looks_at_every_image(tmp_path):
    for x in range(3):
        save(tmp_path, f"s-{32 * x}-0.png", noise(32, 32))
    tiles = open_folder(group_tiles(tmp_path)["s"], mpp=0.5, tile_px=32)
    tiles.check_images()
    (tmp_path / "s-64-0.png").write_text("no image")
    with pytest.raises(SlideError, match=r"s-64-0\.png: not a readable image"):
        tiles.check_images()
    save(tmp_path, "s-64-0.png", noise(40, 40))
    with pytest.raises(SlideError, match="40 x 40 px, but the slide's first tile has 32 x 32"):
        tiles.check_images()


def test_other_files_are_passed_over(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    path = save(tmp_path, "s-0-0.png")
    assert group_tiles(tmp_path) == {"s": (path,)}


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(SlideError, match="contains no tile images"):
        group_tiles(tmp_path)


def test_tile_of_its_own_size_is_read_bit_for_bit(tmp_path):
    picture = noise(40, 40, seed=3)
    assert np.array_equal(opened(save(tmp_path, "s-0-0.png", picture)).read(0), picture)


def test_tile_is_resized_and_its_scale_follows(tmp_path):
    gradient = np.repeat(np.arange(0, 240, 6, dtype=np.uint8)[None, :, None], 40, 0).repeat(3, 2)
    source = opened(save(tmp_path, "s-0-0.png", gradient), tile_px=20)
    assert source.grid.mpp == 1.0
    assert source.grid.side_l0 == (40, 40)
    assert np.abs(source.read(0)[3, 1:-1, 0] - np.arange(15, 231, 12)).max() <= 1


def test_size_is_what_holds_all_tiles(tmp_path):
    files = [save(tmp_path, name) for name in ("s-0-0.png", "s-100-30.png")]
    assert opened(*files).size_l0 == (140, 70)


def test_tile_that_is_not_square_is_refused(tmp_path):
    path = save(tmp_path, "s-0-0.png", noise(40, 41))
    with pytest.raises(SlideError, match="41 x 40 px, but tiles are square"):
        opened(path)


def test_tile_of_another_size_is_refused(tmp_path):
    files = save(tmp_path, "s-0-0.png"), save(tmp_path, "s-40-0.png", noise(50, 50))
    source = opened(*files)
    with pytest.raises(SlideError, match=r"s-40-0\.png: 50 x 50 px, but .* first tile has 40 x 40"):
        source.read(1)


def test_transparent_is_white(tmp_path):
    picture = np.zeros((40, 40, 4), np.uint8)
    picture[:20, :, 3] = 255
    tile = opened(save(tmp_path, "s-0-0.png", picture)).read(0)
    assert (tile[:20] == 0).all()
    assert (tile[20:] == 255).all()


def test_grey_image_is_read_as_rgb(tmp_path):
    picture = noise(40, 40)[:, :, 0]
    tile = opened(save(tmp_path, "s-0-0.png", picture)).read(0)
    assert np.array_equal(tile, np.stack([picture] * 3, axis=-1))


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("keep", [0, 60, 900])
def test_cut_image_is_a_slide_error(tmp_path, suffix, keep):
    good = save(tmp_path, f"s-0-0.{suffix}")
    bad = save(tmp_path, f"s-40-0.{suffix}")
    bad.write_bytes(bad.read_bytes()[:keep])
    with pytest.raises(SlideError, match="not a readable image"):
        opened(good, bad).read(1)


def test_cut_first_image_is_a_slide_error(tmp_path):
    bad = save(tmp_path, "s-0-0.png")
    bad.write_bytes(b"no image")
    with pytest.raises(SlideError, match=r"s-0-0\.png: not a readable image"):
        opened(bad)


def numbered(folder, side, count=2):
    """Images whose red counts pixels in x and green in y, 20 px to a grey value."""
    y, x = np.mgrid[:side, :side]
    picture = np.stack([x // 4, y // 4, 0 * x], axis=-1).astype(np.uint8)
    files = tuple(folder / f"s-{side * number}-0.png" for number in range(count))
    for file in files:
        Image.fromarray(picture).save(file)
    return files


def test_images_larger_than_a_tile_are_cut_into_tiles_of_the_requested_scale(tmp_path):
    source = open_folder(numbered(tmp_path, 512), mpp=0.5, tile_px=64, target_mpp=1.0)
    assert len(source.grid) == 2 * 16
    assert (source.grid.mpp, source.grid.side_l0) == (1.0, (128.0, 128.0))
    assert source.grid.coords_l0[5].tolist() == [128, 128]
    assert source.grid.coords_l0[16].tolist() == [512, 0]
    assert source.size_l0 == (1024, 512)
    assert source.note(1.0) == ""
    tile = source.read(5)
    assert tile.shape == (64, 64, 3)
    assert tile[..., 0].mean() == pytest.approx((128 + 64) / 4, abs=1)
    drawn = source.select(np.array([5, 20]))
    assert np.array_equal(drawn.read(0), tile)
    assert drawn.grid.coords_l0.tolist() == [[128, 128], [512, 128]]


def test_images_that_are_one_tile_of_the_requested_scale_are_taken_whole(tmp_path):
    source = open_folder(numbered(tmp_path, 512), mpp=0.5, tile_px=224, target_mpp=1.143)
    assert len(source.grid) == 2
    assert source.note(1.143) == ""


def test_images_without_the_requested_detail_are_taken_whole_and_the_true_scale_is_noted(tmp_path):
    source = open_folder(numbered(tmp_path, 512), mpp=0.5, tile_px=128, target_mpp=0.25)
    assert len(source.grid) == 2
    assert source.grid.mpp == 2.0
    assert "taken whole, as a tile at 2 µm per pixel" in source.note(0.25)


def test_images_smaller_than_a_tile_are_refused_with_the_scale_they_have(tmp_path):
    with pytest.raises(
        SlideError, match=r"is 512 px of these images .*which have 256\. Set mpp to 1 "
    ):
        open_folder(numbered(tmp_path, 256), mpp=0.5, tile_px=128, target_mpp=2.0)


def test_files_of_the_system_are_no_tiles(tmp_path):
    path, *_ = numbered(tmp_path, 64)
    for name in ("._s-64-0.png", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    assert path in group_tiles(tmp_path)["s"]
    assert len(group_tiles(tmp_path)["s"]) == 2
