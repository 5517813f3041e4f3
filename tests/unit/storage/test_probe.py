import os
from pathlib import Path

import pytest

from ohmq.errors import ConfigError
from ohmq.storage.errors import AccessError, NotFoundError
from ohmq.storage.local import LocalStore
from ohmq.storage.probe import probe_source, probe_target


def test_a_folder_as_target(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "new")
    assert probe_target(store).creates_only and store.creates_only
    assert list(store.list()) == []


def test_a_folder_as_source(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write("_ohmq/job.json", b"{}")
    with pytest.raises(NotFoundError, match="there is nothing"):
        probe_source(store)
    store.write("b", b"")
    assert probe_source(store).path == "b" == probe_source(store, "b").path
    with pytest.raises(NotFoundError, match="/a does not exist"):
        probe_source(store, "a")
    with pytest.raises(NotFoundError, match="there is nothing"):
        probe_source(LocalStore(tmp_path / "none"))


class Careless(LocalStore):
    """A store that takes "create only" for "write"."""

    def create(self, path: str, data: bytes) -> bool:
        self.write(path, data)
        return True


class Racing(LocalStore):
    """A store that checks first and writes later."""

    def create(self, path: str, data: bytes) -> bool:
        missing = self.info(path) is None
        super().create(path, data)
        if path.endswith("-race"):
            return True
        return missing


class Framing(LocalStore):
    """A store that keeps the frames of a checksum in the object."""

    def write(self, path: str, data: bytes | Path) -> None:
        assert isinstance(data, bytes)
        super().write(path, b"%x\r\n%s\r\n0\r\n" % (len(data), data))


class Keeping(LocalStore):
    """A store that lets nobody delete."""

    def delete(self, path: str) -> None:
        raise AccessError(f"{path} cannot be deleted")


@pytest.mark.parametrize("kind", [Careless, Racing])
def test_stores_that_replace_objects(kind: type[LocalStore], tmp_path: Path) -> None:
    store = kind(tmp_path)
    assert not probe_target(store).creates_only and not store.creates_only
    assert os.listdir(tmp_path / "_ohmq") == []


def test_a_store_that_changes_objects(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gives back other bytes .* AWS_REQUEST_CHECKSUM_CALCULATION=when_required"):
        probe_target(Framing(tmp_path))


class Closed(Keeping):
    """A store that lets nobody do anything."""

    def write(self, path: str, data: bytes | Path) -> None:
        raise AccessError("wrong credentials")


def test_the_first_failure_is_told(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match=r"^wrong credentials$"):
        probe_target(Closed(tmp_path))


def test_a_store_that_does_not_delete(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="cannot be deleted; a job must be able to delete its lock"):
        probe_target(Keeping(tmp_path))
