"""Tar shards: what GNU tar and Python write is read, what is damaged is refused, what is written never differs."""

import io
import os
import re
import subprocess
import tarfile

import pytest

from ohmq.storage.errors import ShardError
from ohmq.storage.tar_shards import TarWriter, index_tar, read_samples, split_name

NOT_UTF8 = os.fsdecode(b"caf\xe9.jpg")


def shard_of(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    with TarWriter(file) as writer:
        for name, content in members:
            writer.add(name, content)
    return file.getvalue()


def samples(data: bytes):
    return list(read_samples(io.BytesIO(data), "a.tar"))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a.jpg", ("a", "jpg")),
        ("IMG.v2.jpg", ("IMG", "v2.jpg")),
        ("x.y/a.left.JPG", ("x.y/a", "left.JPG")),
        ("x.y/README", ("x.y/README", "")),
        ("a.", ("a.", "")),
        ("new\nline.jpg", ("new\nline", "jpg")),
    ],
)
def test_names_are_split_at_the_first_dot_of_the_base_name(name, parts):
    assert split_name(name) == parts


def test_samples_hold_their_members_in_order():
    data = shard_of(("b/1.jpg", b"pixels"), ("b/1.json", b"{}"), ("b/1.left.PNG", b""), ("b/2.jpg", b"x" * 513))
    first, second = samples(data)
    assert (first.key, first.fields, first.contents) == ("b/1", ("jpg", "json", "left.png"), (b"pixels", b"{}", b""))
    assert (second.key, second.contents) == ("b/2", (b"x" * 513,))
    for sample in (first, second):
        for member, content in zip(sample.members, sample.contents, strict=True):
            assert data[member.offset : member.offset + member.size] == content


@pytest.mark.parametrize("name", ["short.jpg", "d/" + "n" * 300 + ".jpg", "ü/é.jpg", NOT_UTF8, "日" * 120 + ".jpg"])
def test_any_name_and_content_come_back(name):
    [sample] = samples(shard_of((name, b"content")))
    assert [member.name for member in sample.members] == [name]


def test_bytes_depend_on_names_and_contents_alone():
    file = io.BytesIO()
    with TarWriter(file) as writer:
        placed = [writer.add("a.jpg", b"x" * 700), writer.add("n" * 300 + ".jpg", b"yy")]
    assert placed == list(index_tar(io.BytesIO(file.getvalue()), "a.tar"))
    assert file.getvalue() == shard_of(("a.jpg", b"x" * 700), ("n" * 300 + ".jpg", b"yy"))
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}


def test_a_writer_that_fails_leaves_no_complete_archive():
    file = io.BytesIO()
    writer = TarWriter(file)
    writer.add("a.jpg", b"x")
    with pytest.raises(RuntimeError), writer:
        raise RuntimeError
    with pytest.raises(ShardError, match="unexpected end of data after 1 whole members"):
        samples(file.getvalue())


def test_gnu_tar_reads_and_writes_the_same(tmp_path):
    (tmp_path / "a.tar").write_bytes(shard_of(("n" * 200 + "/ü.jpg", b"photo"), (NOT_UTF8, b"other")))
    subprocess.run(["tar", "-xf", "a.tar"], cwd=tmp_path, check=True)
    assert (tmp_path / ("n" * 200) / "ü.jpg").read_bytes() == b"photo"
    assert (tmp_path / NOT_UTF8).read_bytes() == b"other"
    for kind in ("gnu", "pax"):
        subprocess.run(["tar", f"--format={kind}", "-cf", "b.tar", NOT_UTF8, "n" * 200], cwd=tmp_path, check=True)
        with open(tmp_path / "b.tar", "rb") as file:
            assert [sample.contents for sample in read_samples(file, "b.tar")] == [(b"other",), (b"photo",)]


def tar_with(*infos: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(b"x" * info.size))
    return file.getvalue()


def info(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = size, kind, target
    return member


def test_members_that_are_no_samples_are_named_or_passed_over():
    data = tar_with(
        info("folder", kind=tarfile.DIRTYPE),
        info("__info__", 3),
        info("a.jpg", 2),
        info("._a.jpg", 9),
        info("a.json", 1),
        info("README", 4),
        info("b.jpg", kind=tarfile.SYMTYPE, target="a.jpg"),
        info("c.jpg", kind=tarfile.LNKTYPE, target="a.jpg"),
        info("d.jpg", kind=tarfile.FIFOTYPE),
    )
    found = {sample.key: (len(sample.members), sample.members[0].problem) for sample in samples(data)}
    assert found == {
        "a": (2, ""),
        "README": (1, "a name without an extension"),
        "b.jpg": (1, "a link to 'a.jpg' instead of a file"),
        "c.jpg": (1, "a link to 'a.jpg' instead of a file"),
        "d.jpg": (1, "a sparse or special file"),
    }


def test_members_that_do_not_lie_together_are_refused():
    with pytest.raises(ShardError, match="'a.json' does not lie beside the other members of its sample 'a'"):
        samples(shard_of(("a.jpg", b""), ("b.jpg", b""), ("a.json", b"")))


def test_fields_that_differ_in_case_alone_are_refused():
    with pytest.raises(ShardError, match="sample 'a' has two members of the field 'jpg'"):
        samples(shard_of(("a.jpg", b""), ("a.JPG", b"")))


def test_every_cut_is_noticed():
    data = shard_of(("a.jpg", b"x" * 600), ("b.jpg", b"y" * 600), ("c.jpg", b"z"))
    end = 2 * (512 + 1024) + 512 + 512
    for cut in [*range(0, end, 197), 512, 1536, 3072, end]:
        with pytest.raises(ShardError, match="damaged or incomplete tar") as error:
            samples(data[:cut])
        whole = sum(cut >= last for last in (512 + 600, 1536 + 512 + 600, 3072 + 512 + 1))
        counted = int(found[1]) if (found := re.search(r"after (\d) whole", str(error.value))) else 0
        assert whole - 1 <= counted <= whole
        with pytest.raises(ShardError, match="damaged or incomplete tar"):
            list(index_tar(io.BytesIO(data[:cut]), "a.tar"))


def test_a_damaged_header_is_no_end():
    data = bytearray(shard_of(("a.jpg", b"x"), ("b.jpg", b"y")))
    data[1024 + 150] ^= 1
    with pytest.raises(ShardError, match="damaged header after 1 whole members"):
        samples(bytes(data))


def test_joined_archives_are_refused():
    with pytest.raises(ShardError, match="data after the end of the archive"):
        samples(shard_of(("a.jpg", b"x")) + shard_of(("b.jpg", b"y")))


@pytest.mark.parametrize(("magic", "command"), [(b"\x1f\x8b\x08", "gzip -d"), (b"(\xb5/\xfd", "zstd -d")])
def test_compressed_tars_are_refused(magic, command):
    with pytest.raises(ShardError, match=f"decompress it first .{command}."):
        samples(magic + bytes(2000))


@pytest.mark.parametrize("data", [b"", b"no tar at all", bytes(range(256)) * 8])
def test_other_files_are_refused(data):
    with pytest.raises(ShardError, match=r"a\.tar: a damaged or incomplete tar"):
        samples(data)


def test_an_empty_archive_has_no_samples():
    assert samples(shard_of()) == []
