"""Photos in shards: crops that depend on seed and step alone, wherever the shards lie and however many processes read."""

import hashlib
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.faulty_proxy import faulty_proxy
from support.photo_shards import make_tars, photo_bytes, write_parquet, write_tar
from support.s3_server import S3Server, make_bucket, s3_environment

from ohmq.datasets import sharded_photos
from ohmq.datasets.photos import CropLoader, WholePhotos
from ohmq.datasets.shard_cache import ShardCache
from ohmq.datasets.shard_index import find_shards, is_shard_source
from ohmq.datasets.sharded_photos import ShardedPhotos, hold_out, open_sharded_photos
from ohmq.errors import ConfigError, OutputWriteError
from ohmq.storage.errors import NotFoundError, ShardError
from ohmq.storage.open_store import open_store


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user-cache"))
    return tmp_path / "user-cache" / "ohmq"


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    """A folder for copies of shards."""
    return ShardCache(tmp_path / "copies", 10**9)


def open_photos(source: Path | str, cache: ShardCache, **options) -> tuple[ShardedPhotos, ShardedPhotos]:
    return open_sharded_photos(str(source), cache, **{"smallest_side": 32, "smallest_held_out": 16} | options)


def crops(photos: ShardedPhotos, step: int = 0, **options) -> torch.Tensor:
    loader = CropLoader(photos, 4, 32, seed=3, scale=(0.75, 0.95), step=lambda: step, **options)
    try:
        return torch.cat(list(loader))
    finally:
        loader.close()


def pixels_of(loader: CropLoader) -> str:
    digest = hashlib.sha256()
    for batch in loader:
        digest.update((batch * 255).round().to(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


PINNED = [
    "b291e49a14561042e0b7fda5652dc0035ed0de746c6a5efd9f61a211a35dcc49",
    "59cca63ea2c169ac79eab7a83c22030acdd51641454206d1c334f3b70a5f0a9f",
]
"""Hashes of crops, made before there were shards."""


def test_crops_of_files_are_as_they_always_were(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.png" for number in range(7)]
    for number, file in enumerate(files):
        pixels = np.random.default_rng(number).integers(0, 256, (40 + number, 50, 3), np.uint8)
        Image.fromarray(pixels).save(file)
    assert [pixels_of(CropLoader(files, 2, 32, seed=3, step=lambda step=step: step)) for step in (0, 4)] == PINNED


def test_an_epoch_has_every_photo_once_window_by_window(
    tmp_path: Path, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_photos, "WINDOW_SHARDS", 2)
    make_tars(tmp_path, 5, 4)
    photos, held_out = open_photos(tmp_path / "raw-{000..004}.tar", cache)
    assert (len(photos), len(held_out)) == (19, 1)
    orders = [photos.order(3, epoch) for epoch in (0, 1, 0)]
    assert [sorted(order) for order in orders] == [list(range(19))] * 3
    assert (orders[0] == orders[2]).all()
    assert (orders[0] != orders[1]).any()
    shards = photos.index.shard[orders[0]]
    changes = np.flatnonzero([set(shards[: n + 1].tolist()) != set(shards[:n].tolist()) for n in range(19)])
    assert changes[2] >= 7  # the third shard comes when the first two are used up
    assert not (np.diff(np.flatnonzero(shards == shards[0])) == 1).all()


def test_a_resumed_run_sees_the_same_crops_with_other_processes(tmp_path: Path, cache: ShardCache) -> None:
    make_tars(tmp_path, 3, 6)
    photos, _ = open_photos(tmp_path / "*.tar", cache)
    whole = crops(photos, num_workers=2)
    assert whole.shape == (16, 3, 32, 32)
    assert torch.equal(crops(photos, step=1, num_workers=1), whole[4:])
    assert torch.equal(crops(photos, step=2), whole[8:])
    ranks = [crops(photos, step=2, rank=rank, world_size=2) for rank in (0, 1)]
    assert torch.equal(torch.stack(ranks, 1).flatten(0, 1), torch.cat([whole[8:]]))
    assert torch.equal(crops(pickle.loads(pickle.dumps(photos))), whole)


def test_shards_of_this_machine_and_of_s3_give_the_same_crops(
    tmp_path: Path, cache: ShardCache, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tars(tmp_path / "lake", 3, 6)
    write_parquet(tmp_path / "lake" / "table.parquet", [photo_bytes(n) for n in range(6)] + [None, b"no photo"])
    photos, held_out = open_photos(tmp_path / "lake", cache)
    expected = crops(photos)
    with faulty_proxy(moto) as proxy, s3_environment(proxy.server):
        url = make_bucket(moto, "lake-of-photos")
        for path in sorted((tmp_path / "lake").iterdir()):
            open_store(f"{url}/train-data", for_writing=True).write(path.name, path)
        remote = ShardCache(tmp_path / "remote", 10**6)
        there, _ = open_photos(f"{url}/train-data/", remote)
        assert there.identity == photos.identity
        assert torch.equal(crops(there, num_workers=1), expected)  # spawned
        assert torch.equal(crops(there, step=2), expected[8:])
        assert proxy.count("GET", r"lake-of-photos/train-data/raw-00.\.tar") == 3  # each shard once
        pattern, _ = open_photos(url + "/train-data/raw-{000..002}.tar", remote)
        assert len(pattern) == 17
        with pytest.raises(NotFoundError, match=r"raw-003\.tar: there is none \(2 of 5 are missing\)"):
            open_photos(url + "/train-data/raw-{000..004}.tar", remote)
    assert len(held_out) == 1
    again, _ = open_photos(tmp_path / "lake", cache)
    monkeypatch.setattr("ohmq.storage.remote.FsspecStore._open", None)
    assert torch.equal(crops(there), crops(again))  # the copies are enough


@pytest.mark.parametrize("struct", [True, False])
def test_parquet_and_tar_give_the_same_photos(tmp_path: Path, cache: ShardCache, struct: bool) -> None:
    images = [photo_bytes(number) for number in range(9)]
    write_parquet(tmp_path / "a.parquet", [None, *images], struct=struct)
    write_tar(tmp_path / "a.tar", [(f"{number}.jpg", image) for number, image in enumerate(images)])
    parquet, _ = open_photos(tmp_path / "a.parquet", cache)
    tar, _ = open_photos(tmp_path / "a.tar", cache)
    names = [photos.name(2).rpartition(": ")[2] for photos in (parquet, tar)]
    assert {np.asarray(parquet.read(index)).tobytes() for index in range(8)} <= {
        np.asarray(Image.open(file).convert("RGB")).tobytes() for file in map(io.BytesIO, images)
    }
    assert names[0].startswith("row ")
    assert names[1].endswith(".jpg")


def test_objects_of_their_own_are_photos_too(tmp_path: Path, cache: ShardCache) -> None:
    for part, count in (("train", 7), ("validation", 2)):
        (tmp_path / "lake" / part / "sub").mkdir(parents=True)
        for number in range(count):
            (tmp_path / "lake" / part / "sub" / f"{number}.png").write_bytes(photo_bytes(number))
    (tmp_path / "lake" / "train" / "broken.jpg").write_bytes(b"")
    photos, held_out = open_photos(f"file://{tmp_path}/lake", cache)
    assert (len(photos), len(held_out)) == (7, 2)
    assert photos.name(0).endswith("train/sub/0.png")
    assert len(crops(photos)) == 4
    os.unlink(tmp_path / "lake" / "train" / "sub" / "3.png")
    assert len(crops(photos)) == 4  # the next one takes its place


@pytest.mark.parametrize("names", [("train/a.tar", "validation/b.tar"), ("train-0.tar", "validation-0.tar")])
def test_parts_are_found_by_their_names(tmp_path: Path, cache: ShardCache, names: tuple[str, str]) -> None:
    for count, name in zip((4, 2), names, strict=True):
        write_tar(tmp_path / "lake" / name, [(f"{number}.png", photo_bytes(number)) for number in range(count)])
    write_tar(tmp_path / "lake" / "test-0.tar", [("0.png", photo_bytes(9))])
    assert [len(photos) for photos in open_photos(tmp_path / "lake", cache)] == [4, 2]


def test_held_out_photos_are_few_and_always_the_same(tmp_path: Path, cache: ShardCache) -> None:
    make_tars(tmp_path, 6, 10)
    train, held_out = open_photos(tmp_path, cache)
    assert (len(train), len(held_out)) == (57, 3)
    kept = {held_out.name(index) for index in range(3)}
    assert kept.isdisjoint(train.name(index) for index in range(57))
    assert {held_out.name(index) for index in range(3)} == {
        open_photos(tmp_path, cache)[1].name(index) for index in range(3)
    }
    assert len(WholePhotos(held_out, 16)) == 3
    with pytest.raises(ConfigError, match="a single photo"):
        hold_out(train.index.select(slice(1)))


def test_the_index_is_made_once(tmp_path: Path, cache: ShardCache, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tars(tmp_path, 2, 4)
    first, _ = open_photos(tmp_path, cache, num_workers=2)
    opened: list[str] = []
    whole = ShardCache.open
    monkeypatch.setattr(ShardCache, "open", lambda self, shard: opened.append(shard.path) or whole(self, shard))
    again, _ = open_photos(tmp_path, cache)
    assert (again.identity, opened) == (first.identity, [])
    write_tar(tmp_path / "raw-001.tar", [("000.png", photo_bytes(5)), ("001.png", photo_bytes(6))])
    changed, _ = open_photos(tmp_path, cache)
    assert opened == ["raw-001.tar"]
    assert changed.identity != first.identity


def test_photos_that_cannot_be_used_are_named(
    tmp_path: Path, cache: ShardCache, caplog: pytest.LogCaptureFixture
) -> None:
    good = [(f"g{number}.png", photo_bytes(number)) for number in range(4)]
    cut = photo_bytes(7)[:-200]
    write_tar(tmp_path / "a.tar", [*good, ("small.png", photo_bytes(9, 20, 20)), ("x.jpg", b"none"), ("cut.png", cut)])
    photos, _ = open_photos(tmp_path / "a.tar", cache)
    text = caplog.text
    assert "a.tar: small.png: 20x20 is smaller than 32 pixels" in text
    assert "a.tar: x.jpg: it cannot be read" in text
    assert "left out 2 of 7 photos" in text
    caplog.clear()
    assert len(crops(photos)) == 4
    assert "left out" not in caplog.text or "a.tar: cut.png: damaged image" in caplog.text
    with pytest.raises(ConfigError, match=r"no usable photo in 1 shards, .*a\.tar: each needs at least 100 pixels"):
        open_photos(tmp_path / "a.tar", cache, smallest_side=100)


def test_copies_stay_within_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded_photos, "WINDOW_SHARDS", 1)
    images = [[photo_bytes(10 * shard + number) for number in range(5)] for shard in range(4)]
    paths = [write_parquet(tmp_path / f"{n}.parquet", some) for n, some in enumerate(images)]
    largest = max(path.stat().st_size for path in paths)
    cache = ShardCache(tmp_path / "copies", 2 * largest)
    photos, _ = open_photos(tmp_path / "*.parquet", cache)
    expected = crops(ShardedPhotos(photos.index, ShardCache(tmp_path / "other", 10**9)))
    assert torch.equal(crops(photos), expected)
    held = [file.stat().st_size for file in (tmp_path / "copies").glob("*.shard")]
    assert 0 < sum(held) <= 2 * largest
    with pytest.raises(ConfigError, match="raise --data-cache-bytes"):
        open_photos(tmp_path / "*.parquet", ShardCache(tmp_path / "copies", largest - 1))


def test_a_shard_that_changed_is_refused(tmp_path: Path, cache: ShardCache) -> None:
    [path] = make_tars(tmp_path, 1, 6)
    photos, _ = open_photos(path, cache)
    write_tar(path, [("0.png", photo_bytes(3))])
    with pytest.raises(ShardError, match=r"raw-000\.tar has changed"):
        crops(photos)
    path.unlink()
    with pytest.raises(NotFoundError, match=r"raw-000\.tar"):
        crops(photos)


def test_a_cache_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [photo_bytes(number) for number in range(6)])
    (tmp_path / "file").write_text("")
    photos, _ = open_photos(tmp_path / "a.parquet", ShardCache(tmp_path / "file" / "copies", 10**9))
    with pytest.raises(OutputWriteError, match=r"copies: no copy of .*a\.parquet can be kept \(Not a directory\)"):
        crops(photos)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("empty", ConfigError, r"neither shards \(.tar .parquet\) nor photos there"),
        ("*.tar", ConfigError, "neither shards"),
        ("none.tar", NotFoundError, r"none\.tar: there is none"),
        ("cut.tar", ShardError, r"cut\.tar: a damaged or incomplete tar"),
        ("cut.parquet", ShardError, r"cut\.parquet: a damaged Parquet file"),
        ("s4://lake/a.tar", ConfigError, "unknown scheme s4://"),
    ],
)
def test_sources_that_cannot_be_read(tmp_path: Path, cache: ShardCache, name: str, error: type, text: str) -> None:
    (tmp_path / "empty").mkdir()
    source = name if "://" in name else str(tmp_path / name)
    if "cut" in name:
        (tmp_path / name).write_bytes(b"PAR1" * 50)
    with pytest.raises(error, match=text):
        open_photos(source, cache)


def test_folders_of_photos_are_no_shards(tmp_path: Path) -> None:
    for name, expected in {"s3://lake/raw": True, "a.tar": True, "/x/{00..99}.parquet": True, "photos": False}.items():
        assert is_shard_source(name) == expected
    assert not is_shard_source(None)
    (tmp_path / "train").mkdir()
    assert not is_shard_source(tmp_path)
    (tmp_path / "train" / "a.tar").write_bytes(b"")
    assert is_shard_source(tmp_path)
    (tmp_path / "train" / "a.jpg").write_bytes(b"")
    assert not is_shard_source(tmp_path)


def test_results_of_jobs_are_no_data(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("0.png", photo_bytes(1))])
    write_parquet(tmp_path / "_ohmq" / "plan.parquet", [])
    assert [shard.path for shard in find_shards(str(tmp_path))["train"]] == ["a.tar"]
