"""Keys and fields: no two alike, whatever a folder holds."""

import itertools
import os
import random

import pytest

from ohmq.imaging.listing import IMAGE_EXTENSIONS
from ohmq.storage.keys import KeyMaker, image_positions, output_fields, plain_key
from ohmq.storage.tar_shards import split_name


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("a.jpg", "a"),
        ("v1.2/IMG.v2.JPG", "v1.2/IMG_v2"),
        ("photo", "photo"),
        (".hidden.jpg", "_hidden"),
        (".jpg", "_jpg"),
        ("a.b/c", "a.b/c"),
        (os.fsdecode(b"caf\xe9.x.jpg"), os.fsdecode(b"caf\xe9_x")),
    ],
)
def test_keys_have_no_dots_in_the_base_name(path, key):
    assert plain_key(path) == key
    assert split_name(f"{key}.ohm") == (key, "ohm")


@pytest.mark.parametrize("in_order", [True, False])
def test_no_two_keys_are_alike(in_order):
    generator = random.Random(1)
    words = ["".join(word) for size in (1, 2) for word in itertools.product("a_-1", repeat=size)]
    for _ in range(40):
        paths = {
            "/".join(generator.choices(["a", "a.b", "a_b"], k=generator.randrange(3)) + [name])
            for name in {
                ".".join(
                    generator.choices(words, k=generator.randrange(1, 4))
                    + ["jpg", "png", "2"][: generator.randrange(4)]
                )
                for _ in range(200)
            }
        }
        keys = KeyMaker(in_order=in_order)
        listed = sorted(paths) if in_order else list(paths)
        made = [keys(path) for path in listed]
        assert len(set(made)) == len(listed)
        assert all(split_name(f"{key}.ohm") == (key, "ohm") for key in made)


def test_plain_names_are_not_remembered():
    keys = KeyMaker()
    for number in range(1000):
        keys(f"folder/{number:04}.jpg")
        keys(f"folder/{number:04}.png")
    assert keys("folder/x.jpg") == "folder/x"
    assert len(keys._open[-1].used) == 1000  # the keys with _png
    keys("g/1.jpg")
    assert [folder.name for folder in keys._open] == ["g/"]


def test_clashes_are_numbered():
    keys = KeyMaker()
    paths = ["a.JPG", "a.b.jpg", "a.jpg", "a.jpg", "a/a.jpg", "a_b.jpg", "a_b.png"]
    assert [keys(path) for path in paths] == ["a", "a_b", "a_jpg", "a_jpg_2", "a/a", "a_b_jpg", "a_b_png"]


def test_a_listing_out_of_order_is_refused():
    keys = KeyMaker()
    keys("b.jpg")
    with pytest.raises(ValueError, match="not sorted"):
        keys("a.jpg")


@pytest.mark.parametrize(
    ("fields", "extension", "taken", "names"),
    [
        (["jpg"], "ohm", ["json", "txt"], ["ohm"]),
        (["left.jpg", "right.jpg"], "ohm", [], ["left.ohm", "right.ohm"]),
        (["jpg", "png"], "ohm", [], ["jpg.ohm", "png.ohm"]),
        (["JPG"], "ohm", ["OHM"], ["jpg.ohm"]),
        (["ohm"], "png", [], ["png"]),
        (["ohm"], "ohm", ["json"], ["ohm"]),
        (["left.ohm", "ohm"], "png", [], ["left.png", "png"]),
        (["jpg.ohm", "png.ohm"], "png", [], ["jpg.png", "png"]),
        (["jpg.ohm", "png.ohm"], "ohm", [], ["jpg.ohm", "png.ohm"]),
        (["jpg.ohm", "json"], "png", ["png"], ["jpg.png", "png.png"]),
    ],
)
def test_fields_of_results(fields, extension, taken, names):
    if fields[-1] == "json":
        fields, names = fields[:-1], names[:-1]
    assert output_fields(fields, extension, extensions=IMAGE_EXTENSIONS, taken=taken) == names


def test_a_field_that_stays_taken_is_refused():
    with pytest.raises(ValueError, match=r"no names for the results of jpg beside ohm, jpg\.ohm"):
        output_fields(["jpg"], "ohm", taken=["ohm", "jpg.ohm"])


def test_images_are_found_by_the_last_part_of_the_field():
    assert image_positions(["json", "left.JPG", "seg.png", "txt", ""], IMAGE_EXTENSIONS) == [1, 2]
