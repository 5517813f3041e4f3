import dataclasses

import pytest

from ohmq.bulk.job import BulkJob
from ohmq.encoder.options import EncodeOptions
from ohmq.errors import ConfigError


def make_job(**fields):
    return BulkJob(**{"operation": "compress", "sources": ("photos",), "target": "out", **fields})


def test_json_keeps_every_field():
    job = make_job(
        sources=["s3://lake/raw", "phötos"],
        target="s3://lake/ohm/data-{}.tar",
        options=EncodeOptions(bpp=0.3, layers="all"),
        layout="tar",
        images_per_shard=7,
        from_list="list.txt",
        engine="ray",
        workers=3,
        gpus_per_worker=0.5,
        measure=True,
    )
    assert BulkJob.from_json(job.to_json()) == job
    cut = make_job(operation="truncate", cut={"max_bytes": 4000})
    assert BulkJob.from_json(cut.to_json()) == cut


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"operation": "compress", "unknown": 1}'])
def test_json_of_something_else_is_refused(text):
    with pytest.raises(ConfigError, match="not the description of a bulk job"):
        BulkJob.from_json(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"operation": "shrink"}, "operation is 'shrink'"),
        ({"engine": "spark"}, "engine is 'spark'"),
        ({"layout": "zip"}, "layout is 'zip'"),
        ({"images_per_shard": 0}, "images_per_shard is 0"),
        ({"images_per_shard": 10**6}, "at most 100000"),
        ({"workers": True}, "workers is True"),
        ({"bytes_per_shard": 1.5}, "bytes_per_shard is 1.5"),
        ({"image_timeout_s": 0}, "image_timeout_s is 0"),
        ({"gpus_per_worker": -1}, "gpus_per_worker is -1"),
        ({"image_format": ".png"}, "image_format is '.png'"),
        ({"cut": {"bpp": 1}}, "cut goes with truncate only"),
        ({"operation": "truncate"}, "cut has 0 limits"),
        ({"operation": "truncate", "cut": {"bpp": 1, "psnr": 30}}, "cut has 2 limits"),
        ({"operation": "truncate", "cut": {"size": 1}}, "cut has 'size'"),
        ({"operation": "decompress", "measure": True}, "measure goes with compress"),
    ],
)
def test_wrong_options_are_value_errors(fields, message):
    with pytest.raises(ValueError, match=message):
        make_job(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": ()}, "no sources"),
        ({"sources": ("",)}, "an empty name"),
        ({"target": ""}, "no target"),
        ({"target": "out.tar"}, "must hold {} once"),
        ({"target": "out-{}"}, "ends neither in .tar nor in .parquet"),
        ({"target": "s3://lake/_ohmq"}, "the job's own"),
        ({"target": "out-{}.tar", "layout": "files"}, "layout is files"),
    ],
)
def test_wrong_places_are_config_errors(fields, message):
    with pytest.raises(ConfigError, match=message):
        make_job(**fields)


@pytest.mark.parametrize("place", ["sources", "target", "from_list"])
@pytest.mark.parametrize(
    "url", ["s3://me:geheim@lake/raw", "https://host/a.tar?X-Amz-Signature=geheim", "https://host/a.tar?sig=geheim"]
)
def test_credentials_are_refused_and_not_repeated(place, url):
    with pytest.raises(ConfigError, match="password or a signature") as caught:
        make_job(**{place: (url,) if place == "sources" else url})
    assert "geheim" not in str(caught.value)


def test_container_of_azure_is_no_password():
    make_job(sources=("abfs://container@account.dfs.core.windows.net/raw",))


@pytest.mark.parametrize(
    ("target", "root", "object_output", "tar_output"),
    [
        ("out", "out", "shard-000012.tar", "birds/a.tar"),
        ("s3://lake/ohm/data-{}.tar", "s3://lake/ohm", "data-000012.tar", "data-000012.tar"),
        ("data-{}.parquet", ".", "data-000012.parquet", "data-000012.parquet"),
        ("/data-{}.tar", "/", "data-000012.tar", "data-000012.tar"),
    ],
)
def test_outputs_are_named_by_the_target(target, root, object_output, tar_output):
    job = make_job(target=target)
    assert job.target_root == root
    assert job.output_of("object", 12, "birds/a") == object_output
    assert job.output_of("tar", 12, "birds/a") == tar_output


def test_outputs_of_each_layout():
    assert make_job().output_of("parquet", 1, "a-000") == "a-000.parquet"
    files = make_job(operation="decompress", layout="files", image_format="webp")
    assert files.output_of("object", 1, "a/b.jpg") == "a/b.jpg.webp"
    assert files.output_of("tar", 1, "a/b") == "a/b/"
    assert make_job(layout="parquet").output_of("tar", 1, "a/b") == "a/b.parquet"


def test_options_hash_covers_outputs_alone():
    job = make_job()
    same = {"engine": "ray", "workers": 4, "threads": 2, "update": True, "max_attempts": 9, "target": "elsewhere"}
    assert make_job(**same).options_hash("ab") == job.options_hash("ab")
    others = {
        "options": EncodeOptions(bpp=1),
        "layout": "files",
        "images_per_shard": 9,
        "bytes_per_shard": 9,
        "target": "out/{}.tar",
        "operation": "transcode",
        "decode_model": "mnist-ohm",
    }
    hashes = {make_job(**{name: value}).options_hash("ab") for name, value in others.items()}
    hashes |= {job.options_hash("ab"), job.options_hash("cd")}
    assert len(hashes) == len(others) + 2


def test_differences_name_the_option():
    job = make_job(options=EncodeOptions(bpp=0.5))
    later = dataclasses.replace(job, options=EncodeOptions(bpp=0.3), images_per_shard=10, workers=9)
    assert later.differences(job) == [("bpp", 0.5, 0.3), ("images_per_shard", 1000, 10)]
    assert job.differences(dataclasses.replace(job, engine="ray", target="elsewhere")) == []


def test_absolute_keeps_urls_and_names_of_shipped_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.safetensors").touch()
    (tmp_path / "photo").mkdir()
    job = make_job(sources=("photos", "s3://lake/raw"), decode_model="mine.safetensors").absolute()
    assert job.sources == (str(tmp_path / "photos"), "s3://lake/raw")
    assert (job.target, job.model, job.decode_model) == (
        str(tmp_path / "out"), "photo", str(tmp_path / "mine.safetensors"),
    )  # fmt: skip
