"""Description of a bulk job, validated once; it travels to workers and lies beside the outputs."""

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from ohmq.encoder.options import EncodeOptions
from ohmq.errors import ConfigError

__all__ = [
    "CONTROL",
    "CUTS",
    "MAX_IMAGES_PER_SHARD",
    "BulkJob",
    "Difference",
    "EngineName",
    "Layout",
    "Operation",
    "check_credentials",
    "shard_label",
    "target_pattern",
    "target_root",
]

Operation = Literal["compress", "decompress", "transcode", "truncate"]
Layout = Literal["tar", "files", "parquet"]
EngineName = Literal["local", "ray"]

CONTROL = "_ohmq"
"""Folder below the target that holds the plan, the manifest and the markers."""
CUTS = ("channels", "fraction", "max_bytes", "bpp", "psnr", "num_layers")
"""Limits of a job that truncates, of which exactly one is given; see `ohmq.bitstream.truncate.truncate_ohm`."""
MAX_IMAGES_PER_SHARD = 100_000
"""Largest number of images in a shard: a worker holds the rows of its shard in memory."""

_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")
_SIGNATURE = re.compile(r"[?&](x-amz-signature|x-goog-signature|sig|awsaccesskeyid|signature)=", re.IGNORECASE)
_FORMAT = re.compile(r"[a-z0-9]+")
_NAMING = (
    "operation",
    "decode_model",
    "options",
    "image_format",
    "cut",
    "layout",
    "images_per_shard",
    "bytes_per_shard",
    "image_column",
)


def _absolute(name: str) -> str:
    return name if "://" in name else os.path.abspath(name)


def _absolute_model(name: str) -> str:
    """Return the absolute path of a model file; names of shipped models have no extension, and stay."""
    return os.path.abspath(name) if "." in os.path.basename(name) and os.path.isfile(name) else name


class Difference(NamedTuple):
    """A field in which two jobs differ, with its value in each."""

    field: str
    there: Any
    here: Any


def check_credentials(text: str, name: str) -> None:
    """Refuse a URL that holds a password or a signature: it would end up in the plan and in logs.

    Args:
        text: a path, URL or pattern.
        name: name of the option or place, for the message.

    Raises:
        ConfigError: it holds credentials; the message does not repeat them.
    """
    if _PASSWORD.search(text) or _SIGNATURE.search(text):
        raise ConfigError(
            f"{name} holds a URL with a password or a signature, which would be written into the job's description; "
            "give credentials through the environment or the provider's configuration file"
        )


def shard_label(shard: int) -> str:
    """Return the number of a shard as names and messages have it: six digits at least.

    Example:
        >>> shard_label(123)
        '000123'
    """
    return f"{shard:06d}"


def target_root(target: str) -> str:
    """Return the folder or URL below which the outputs of a target lie: the target, or the folder of its pattern.

    Example:
        >>> target_root("s3://lake/ohm/data-{}.tar"), target_root("archive")
        ('s3://lake/ohm', 'archive')
    """
    if target_pattern(target) is None:
        return target
    return target.rpartition("/")[0] or ("/" if target.startswith("/") else ".")


def target_pattern(target: str) -> str | None:
    """Return the name of a target's shards with ``{}`` for their number; None: the target is a folder."""
    last = target.rpartition("/")[2]
    return last if "{}" in last else None


@dataclass(frozen=True, kw_only=True)
class BulkJob:
    """Description of a bulk job: sources, target, operation and its options, engine. It holds no credentials.

    Attributes:
        operation: "compress" (images to .ohm), "decompress" (.ohm to images), "transcode" (.ohm to .ohm with other options
            or another model) or "truncate" (cut .ohm files without a model).
        sources: folders, files, glob patterns, brace patterns and URLs.
        target: folder or URL of the outputs, or a pattern such as ``s3://lake/ohm/data-{}.tar`` with ``{}`` for the number
            of a shard.
        model: name of a shipped model, model file or checkpoint (compress, transcode).
        decode_model: model of the .ohm files that are read (decompress, transcode); "": the shipped one that each file names.
        options: options of the encoder (compress, transcode).
        image_format: extension of decompressed images, without a dot.
        cut: the limit of a job that truncates: exactly one of `CUTS` and its value.
        layout: "tar" or "parquet": shards; "files": one file an image, in the folders of the sources; None: tar for
            single files, and for shards the kind that they have.
        images_per_shard: largest number of single files in a shard, at most `MAX_IMAGES_PER_SHARD`.
        bytes_per_shard: size in bytes at which a shard of single files is full.
        image_column: column of Parquet sources that holds the images; None: found by its type or name.
        from_list: file or URL with one path or URL a line, optionally a tab and the size in bytes; taken beside `sources`.
        engine: "local" (processes of this machine) or "ray".
        workers: number of shards at once; None: one a core.
        threads: threads of torch in a worker.
        address: address of a Ray cluster; None: a Ray of this machine.
        gpus_per_worker: number of GPUs of a worker, which may be a fraction.
        device: device that runs the transforms.
        compiled: whether numba compiles the inner loops; None: if it is installed.
        update: list the sources again, and add what is new or changed to an earlier job.
        measure: decode each image after coding, and note its PSNR in the manifest.
        image_timeout_s: seconds after which the worker gives up an image.
        stall_timeout_s: seconds without a finished shard after which the job ends.
        max_attempts: number of times that a shard is tried.

    Raises:
        ValueError: an option out of range, or one that does not go with the operation.
        ConfigError: no source, a URL with credentials, or a target that cannot be.
    """

    operation: Operation
    sources: tuple[str, ...] = ()
    target: str
    model: str = "photo"
    decode_model: str = ""
    options: EncodeOptions = field(default_factory=EncodeOptions)
    image_format: str = "png"
    cut: Mapping[str, float] = field(default_factory=dict)
    layout: Layout | None = None
    images_per_shard: int = 1000
    bytes_per_shard: int = 256 * 2**20
    image_column: str | None = None
    from_list: str | None = None
    engine: EngineName = "local"
    workers: int | None = None
    threads: int = 1
    address: str | None = None
    gpus_per_worker: float = 0.0
    device: str = "cpu"
    compiled: bool | None = None
    update: bool = False
    measure: bool = False
    image_timeout_s: float = 600.0
    stall_timeout_s: float = 1800.0
    max_attempts: int = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(map(str, self.sources)))
        object.__setattr__(self, "cut", dict(self.cut))
        for name, choices in (("operation", Operation), ("engine", EngineName)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(get_args(choices))}")
        if self.layout is not None and self.layout not in get_args(Layout):
            raise ValueError(f"layout is {self.layout!r}; choose from {', '.join(get_args(Layout))}")
        for name in ("images_per_shard", "bytes_per_shard", "threads", "max_attempts", "workers"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is {value!r}; it must be a whole number from 1")
        if self.images_per_shard > MAX_IMAGES_PER_SHARD:
            raise ValueError(f"images_per_shard is {self.images_per_shard}; at most {MAX_IMAGES_PER_SHARD}")
        for name in ("image_timeout_s", "stall_timeout_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be a positive number of seconds")
        if not 0 <= self.gpus_per_worker < math.inf:
            raise ValueError(f"gpus_per_worker is {self.gpus_per_worker}; it must be 0 or more")
        if not _FORMAT.fullmatch(self.image_format):
            raise ValueError(f"image_format is {self.image_format!r}; give an extension without a dot, such as png")
        self._check_operation()
        self._check_places()

    def _check_operation(self) -> None:
        if unknown := sorted(set(self.cut) - set(CUTS)):
            raise ValueError(f"cut has {unknown[0]!r}; choose from {', '.join(CUTS)}")
        if self.operation == "truncate" and len(self.cut) != 1:
            raise ValueError(f"cut has {len(self.cut)} limits; to truncate, give exactly one of {', '.join(CUTS)}")
        if self.operation != "truncate" and self.cut:
            raise ValueError(f"cut goes with truncate only, not with {self.operation}")
        if self.measure and self.operation not in ("compress", "transcode"):
            raise ValueError(f"measure goes with compress and transcode, not with {self.operation}")

    def _check_places(self) -> None:
        if not self.sources and self.from_list is None:
            raise ConfigError("no sources: give folders, files, patterns or URLs, or a list of them")
        if "" in self.sources:
            raise ConfigError("an empty name among the sources")
        if not self.target:
            raise ConfigError("no target: give a folder or a URL for the outputs")
        places = [("source", name) for name in self.sources]
        places += [("target", self.target), ("from_list", self.from_list or ""), ("model", self.model)]
        places += [("decode_model", self.decode_model)]
        for name, text in places:
            check_credentials(text, name)
        last = self.target.rstrip("/").rpartition("/")[2]
        if last.startswith(CONTROL):
            raise ConfigError(f"target {self.target}: names that begin with {CONTROL} are the job's own")
        kind = last.rpartition(".")[2].lower() if last.lower().endswith((".tar", ".parquet")) else None
        if kind is None and "{}" in last:
            raise ConfigError(f"target {self.target} has {{}} but ends neither in .tar nor in .parquet")
        if kind is not None and last.count("{}") != 1:
            raise ConfigError(
                f"target {self.target} ends in .{kind}, so it must hold {{}} once, for the number of a shard"
            )
        if kind is not None and self.layout not in (None, kind):
            raise ConfigError(f"target {self.target} ends in .{kind}, but layout is {self.layout}")

    @property
    def target_root(self) -> str:
        """Folder or URL below which the outputs lie: the target, or the folder of its pattern."""
        return target_root(self.target)

    @property
    def target_pattern(self) -> str | None:
        """Name of shards with ``{}`` for their number, such as "data-{}.tar"; None: the target is a folder."""
        return target_pattern(self.target)

    @property
    def output_extension(self) -> str:
        """Extension of an output image, with its dot."""
        return f".{self.image_format}" if self.operation == "decompress" else ".ohm"

    def layout_for(self, kind: str) -> Layout:
        """Return the layout of the outputs of a kind of source.

        Args:
            kind: "object", "tar" or "parquet".
        """
        if self.target_pattern is not None:
            return "tar" if self.target_pattern.lower().endswith(".tar") else "parquet"
        if self.layout is not None:
            return self.layout
        return "parquet" if kind == "parquet" else "tar"

    def output_of(self, kind: str, shard: int, key: str) -> str:
        """Return the path of an output below `target_root`; of shards in layout "files", their folder with a slash.

        Args:
            kind: "object", "tar" or "parquet", as `ohmq.bulk.rows.PlanRow` has it.
            shard: number of the shard.
            key: key of the row. Single files in layout "tar" or "parquet" share the output of their shard.
        """
        layout = self.layout_for(kind)
        if layout == "files":
            return f"{key}{self.output_extension}" if kind == "object" else f"{key}/"
        if self.target_pattern is not None:
            return self.target_pattern.replace("{}", shard_label(shard))
        return f"shard-{shard_label(shard)}.{layout}" if kind == "object" else f"{key}.{layout}"

    def absolute(self) -> "BulkJob":
        """Return the job with absolute local paths, so that it means the same in every process and folder."""
        return dataclasses.replace(
            self,
            sources=tuple(map(_absolute, self.sources)),
            target=_absolute(self.target),
            from_list=self.from_list and _absolute(self.from_list),
            model=_absolute_model(self.model),
            decode_model=_absolute_model(self.decode_model),
        )

    def output_fields(self) -> dict[str, Any]:
        """Return the fields that change outputs or manifest, as JSON has them: all that a plan is made for."""
        fields = self._fields()
        named = {name: fields[name] for name in ("sources", "from_list", *_NAMING, "measure")}
        return {**named, "target": self.target_pattern}

    def options_hash(self, model_id: str | None) -> str:
        """Return the SHA-256 in hexadecimal digits of what changes outputs, sources left out.

        Args:
            model_id: id of the model in hexadecimal digits; None: no model, or that of each file.
        """
        fields = self._fields()
        named = {name: fields[name] for name in _NAMING} | {"model_id": model_id, "target": self.target_pattern}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()

    def differences(self, earlier: "BulkJob") -> list[Difference]:
        """List the fields that change outputs in which this job differs from an earlier one.

        Args:
            earlier: job that the plan of the target was made for.
        """
        there, here = earlier.output_fields(), self.output_fields()
        changes = [Difference(name, there[name], here[name]) for name in here if there[name] != here[name]]
        for number, change in enumerate(changes):  # name the option, not all options
            if change.field == "options":
                changes[number : number + 1] = [
                    Difference(name, there["options"][name], here["options"][name])
                    for name in here["options"]
                    if there["options"][name] != here["options"][name]
                ]
                break
        return changes

    def _fields(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "sources": list(self.sources)}

    def to_json(self) -> str:
        """Return the job as JSON."""
        return json.dumps(self._fields(), indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> "BulkJob":
        """Read a job from JSON.

        Raises:
            ConfigError: not the JSON of a job; the message says why.
        """
        try:
            fields = json.loads(text)
            return cls(**{**fields, "options": EncodeOptions(**fields["options"])})
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"not the description of a bulk job that this version reads: {error}") from error
