"""Parquet shards: columns of images are found, replaced and written the same each time."""

import gc
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ohmq.errors import ConfigError
from ohmq.storage.errors import ShardError
from ohmq.storage.parquet_shards import ParquetShard, ParquetShardWriter, image_columns

FEATURES = {"info": {"features": {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}}}


def table(rows: int, *, struct: bool = True) -> pa.Table:
    images = [None if index == 3 else b"%d" % index * 50 for index in range(rows)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if struct else pa.binary()
    values = [image and {"bytes": image, "path": f"{index}.jpg"} for index, image in enumerate(images)]
    return pa.table(
        {"label": pa.array(range(rows)), "image": pa.array(values if struct else images, type=kind)}
    ).replace_schema_metadata({"huggingface": json.dumps(FEATURES), "mine": "kept"})


def file_of(content: pa.Table, **settings) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(content, file, **settings)
    file.seek(0)
    return file


@pytest.mark.parametrize("struct", [True, False])
def test_rows_come_in_order_a_hundred_at_a_time(struct):
    shard = ParquetShard(file_of(table(250, struct=struct), row_group_size=120), "a.parquet")
    assert (shard.column, shard.num_rows, shard.group_rows) == ("image", 250, [120, 120, 10])
    parts = list(shard.read())
    assert max(len(part.images) for part in parts) <= 100
    assert parts[0].images[:5] == [b"0" * 50, b"1" * 50, b"2" * 50, None, b"4" * 50]
    assert next(shard.read(1, 2)).first == 120
    assert sum(len(part.images) for part in shard.read(1, 2)) == 130
    assert parts[0].names[4] == ("4.jpg" if struct else None)


@pytest.mark.parametrize("struct", [True, False])
def test_images_are_replaced_and_the_rest_is_passed_on(struct):
    source = ParquetShard(file_of(table(250, struct=struct)), "a.parquet")

    def written() -> bytes:
        file = io.BytesIO()
        with ParquetShardWriter(file, source.schema, source.column, readable=False) as writer:
            for part in source.read():
                writer.write(part.rows, [image and image[:1] for image in part.images])
        return file.getvalue()

    data = written()
    assert data == written()
    result = pq.ParquetFile(io.BytesIO(data))
    assert [result.metadata.row_group(group).num_rows for group in range(3)] == [100, 100, 50]
    again = ParquetShard(io.BytesIO(data), "b.parquet")
    assert [image for part in again.read() for image in part.images][2:5] == [b"2", None, b"4"]
    assert result.read().column("label").to_pylist() == list(range(250))
    kind = result.schema_arrow.field("image").type
    assert (kind.field("bytes").type if struct else kind) == pa.large_binary()
    assert result.schema_arrow.metadata[b"mine"] == b"kept"


@pytest.mark.parametrize("readable", [True, False])
def test_hugging_face_is_told_what_the_column_holds(readable):
    file = io.BytesIO()
    with ParquetShardWriter(file, table(1).schema, "image", readable=readable):
        pass
    features = json.loads(pq.read_schema(io.BytesIO(file.getvalue())).metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == FEATURES["info"]["features"]["label"]
    assert (features["image"] == {"_type": "Image"}) == readable
    assert readable or features["image"]["bytes"] == {"dtype": "large_binary", "_type": "Value"}


def test_a_writer_that_fails_takes_no_more_rows():
    file = io.BytesIO()
    writer = ParquetShardWriter(file, table(1).schema, "image", readable=False)
    with pytest.raises(RuntimeError), writer:
        raise RuntimeError
    file.close()
    del writer
    gc.collect()  # raises nothing, though the file is closed


def test_the_column_must_be_clear():
    two = pa.table({"a": [b"x"], "b": pa.array([b"y"], pa.large_binary()), "c": ["z"]})
    assert image_columns(two.schema) == ["a", "b"]
    assert ParquetShard(file_of(two), "a.parquet", "b").column == "b"
    with pytest.raises(ConfigError, match="several columns may hold images: a, b; choose one by --image-column"):
        ParquetShard(file_of(two), "a.parquet")
    with pytest.raises(ConfigError, match="column 'c' holds no bytes; columns that may hold images: a, b"):
        ParquetShard(file_of(two), "a.parquet", "c")
    with pytest.raises(ConfigError, match="column 'd' is not there"):
        ParquetShard(file_of(two), "a.parquet", "d")
    with pytest.raises(ConfigError, match="no column may hold images; columns: c"):
        ParquetShard(file_of(two.select(["c"])), "a.parquet")


@pytest.mark.parametrize("cut", [0, 3, 100, 3000, -1])
def test_damaged_files_are_refused(cut):
    data = file_of(table(250)).getvalue()
    with pytest.raises(ShardError, match=r"a\.parquet: a damaged Parquet file, or none"):
        ParquetShard(io.BytesIO(data[:cut]), "a.parquet")


def test_damaged_pages_are_refused():
    data = bytearray(file_of(table(250), compression="none").getvalue())
    data[4:2000] = bytes(1996)
    with pytest.raises(ShardError, match=r"a\.parquet: a damaged Parquet file"):
        list(ParquetShard(io.BytesIO(bytes(data)), "a.parquet").read())
