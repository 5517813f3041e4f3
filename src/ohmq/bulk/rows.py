"""Rows of plans and manifests, and their Parquet schemas."""

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from ohmq.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow

__all__ = [
    "BINARY_FIELDS",
    "FLOAT_FIELDS",
    "UNKNOWN_SIZE",
    "VOLATILE",
    "ManifestRow",
    "PlanRow",
    "SourceKind",
    "bytes_to_path",
    "import_pyarrow",
    "manifest_schema",
    "path_to_bytes",
    "plan_schema",
]

SourceKind = Literal["object", "tar", "parquet"]

UNKNOWN_SIZE = -1
"""Size of an object that its store does not tell."""
BINARY_FIELDS = ("source", "member", "key", "output")
"""Fields of a manifest that may hold bytes that are not UTF-8."""
FLOAT_FIELDS = ("bpp", "psnr_db", "seconds")
"""Fields of a manifest that are floating point."""
VOLATILE = ("seconds", "attempt", "worker")
"""Fields of a manifest in which two runs of one job may differ."""


class PlanRow(NamedTuple):
    """One source in the plan: a single file, a tar, or a Parquet file or some of its row groups.

    Attributes:
        shard: number of the shard.
        index: place in the shard, from 0.
        kind: "object" (a single file), "tar" or "parquet".
        source: index of the store in the plan's roots.
        path: path below that root; bytes that are not UTF-8 are surrogate escapes.
        size: size in bytes; `UNKNOWN_SIZE` if the store does not tell.
        version: version of the object as its store tells it.
        key: key of the sample in a tar or Parquet shard; otherwise the path of the output without its extension.
        first_group: first row group of a Parquet source; -1: all of them.
        last_group: last row group, inclusive; -1: all of them.
        replaces: shard of an earlier generation that holds the older output of a source that has changed; -1: none.
    """

    shard: int
    index: int  # type: ignore[assignment]
    kind: SourceKind
    source: int
    path: str
    size: int
    version: str
    key: str
    first_group: int = -1
    last_group: int = -1
    replaces: int = -1


class ManifestRow(NamedTuple):
    """One image of the manifest: done, or failed with an error.

    Attributes:
        shard: number of the shard.
        index: place in the shard, from 0.
        source: URL or path of the source, without credentials.
        member: member of a source tar, or row of a source Parquet; None: a single file.
        key: key of the sample, or path of the output without its extension.
        output: path of the output file or shard below the target's root; None: failed.
        field: field of the output in its sample, such as "ohm" or "left.ohm"; None: a file of its own.
        source_sha256: SHA-256 of the source image in hexadecimal digits; None: it could not be read.
        output_sha256: SHA-256 of the output image; None: failed.
        symbols_sha256: SHA-256 of the symbols; None where no model decoded or coded it.
        bytes_in: size of the source image in bytes.
        bytes_out: size of the output image in bytes; 0: failed.
        width: width in pixels; 0: unknown.
        height: height in pixels; 0: unknown.
        bpp: bits of the output file for each pixel; None: failed.
        psnr_db: PSNR in dB, if it was asked for.
        seconds: seconds that the image took.
        attempt: attempt of the shard, from 1.
        worker: machine and process, "host:pid".
        error: why there is no output; None: done.
        notes: notes about the image, one a line; "": none.
    """

    shard: int
    index: int  # type: ignore[assignment]
    source: str
    member: str | None
    key: str
    output: str | None
    field: str | None
    source_sha256: str | None
    output_sha256: str | None
    symbols_sha256: str | None
    bytes_in: int
    bytes_out: int
    width: int
    height: int
    bpp: float | None
    psnr_db: float | None
    seconds: float
    attempt: int
    worker: str
    error: str | None = None
    notes: str = ""


def import_pyarrow() -> Any:
    """Import pyarrow with its Parquet module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("pyarrow"):
            raise
        raise ConfigError('bulk coding needs pyarrow: pip install "ohmq[bulk]"') from error
    return pyarrow


def path_to_bytes(path: str) -> bytes:
    """Return the bytes of a path whose bytes may not be UTF-8."""
    return path.encode("utf-8", "surrogateescape")


def bytes_to_path(path: bytes) -> str:
    """Return the path of `path_to_bytes`."""
    return path.decode("utf-8", "surrogateescape")


def plan_schema() -> "pyarrow.Schema":
    """Return the schema of a part of the plan; the columns are those of `PlanRow`."""
    pa = import_pyarrow()
    types = {
        **dict.fromkeys(("shard", "index", "first_group", "last_group", "replaces"), pa.int32()),
        **dict.fromkeys(("path", "key"), pa.large_binary()),
        **dict.fromkeys(("kind", "version"), pa.string()),
        "source": pa.int16(),
        "size": pa.int64(),
    }
    return cast("pyarrow.Schema", pa.schema([(name, types[name]) for name in PlanRow._fields]))


def manifest_schema() -> "pyarrow.Schema":
    """Return the schema of a part of the manifest; the columns are those of `ManifestRow`.

    Names that may hold bytes that are no UTF-8 are binary: `path_to_bytes`.
    """
    pa = import_pyarrow()
    types = {
        **dict.fromkeys(("shard", "index", "width", "height", "attempt"), pa.int32()),
        **dict.fromkeys(("bytes_in", "bytes_out"), pa.int64()),
        **dict.fromkeys(FLOAT_FIELDS, pa.float64()),
        **dict.fromkeys(BINARY_FIELDS, pa.large_binary()),
    }
    return cast("pyarrow.Schema", pa.schema([(name, types.get(name, pa.string())) for name in ManifestRow._fields]))
