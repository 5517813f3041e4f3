"""What passes between driver and workers: a shard to do, and how it went. A kilobyte each, never image bytes."""

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from ohmq.bulk.job import BulkJob
    from ohmq.bulk.plan import PlannedShard

__all__ = ["Engine", "OutcomeKind", "ShardOutcome", "ShardTask"]

OutcomeKind = Literal["done", "died", "transient", "fatal", "mismatch"]
"""End of a shard: its marker is written; its worker died; storage failed for now; it cannot be done; wrong version or model."""


class ShardTask(NamedTuple):
    """One shard to do.

    Attributes:
        job: the job, with absolute paths.
        planned: the shard's place in the plan.
        roots: URLs of the stores of the sources; rows of the plan name them by number.
        options_hash: hash of the options that decide the outputs.
        model_id: hexadecimal id of the driver's model; None: there is none, or each file names its own.
        version: version of the driver's ohmq.
        attempt: 1 for the first one.
        retry: do only the images that failed, and keep the others of the outputs that exist.
    """

    job: "BulkJob"
    planned: "PlannedShard"
    roots: tuple[str, ...]
    options_hash: str
    model_id: str | None
    version: str
    attempt: int = 1
    retry: bool = False

    @property
    def shard(self) -> int:
        """Number of the shard."""
        return self.planned.shard


class ShardOutcome(NamedTuple):
    """How a shard ended.

    Attributes:
        shard: number of the shard.
        kind: see `OutcomeKind`.
        error: one line; None: done.
        images: number of images, with those that failed.
        failed: number of images that failed.
        bytes_in: size of the images that were read, in bytes.
        bytes_out: size of the outputs, in bytes.
        pixels: number of pixels.
        seconds: duration.
        worker: host and process.
    """

    shard: int
    kind: OutcomeKind
    error: str | None = None
    images: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0
    seconds: float = 0.0
    worker: str = ""


class Engine(Protocol):
    """Runs shards somewhere."""

    @property
    def slots(self) -> int:
        """Number of shards that run at once; it may change."""

    def submit(self, task: ShardTask) -> None:
        """Take a shard, to be done when a worker is free."""

    def wait(self, timeout_s: float) -> list[ShardOutcome]:
        """Return the shards that have ended since the last call; wait for one at most ``timeout_s`` seconds."""

    def running(self) -> dict[int, float]:
        """Return the shards that are being done, and for how many seconds."""

    def close(self) -> None:
        """End all workers, whatever they do."""
