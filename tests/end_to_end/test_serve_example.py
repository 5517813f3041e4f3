"""``examples/serve.py`` and ``examples/fetch.py``: one file at many bitrates, over HTTP."""

import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from support.small_models import make_codec

from ohmq.bitstream.reader import read_header
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.codec import Codec
from ohmq.model_files.frozen_model import save_model

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE_S = 60
"""Seconds to wait for the image of the first layer."""


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serve, fetch = example("serve"), example("fetch")


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make_codec("context")


@pytest.fixture(scope="module")
def model(codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "context.safetensors"
    save_model(codec.frozen, path)
    return path


@pytest.fixture
def folder(codec: Codec, tmp_path: Path, digits: list[Image.Image]) -> Path:
    """A folder with one file of six layers, a damaged file and a text file."""
    folder = tmp_path / "files"
    folder.mkdir()
    image = Image.new("L", (84, 56))
    for number, digit in enumerate(digits[:6]):
        image.paste(digit, (number % 3 * 28, number // 3 * 28))
    (folder / "a b.ohm").write_bytes(codec.compress(image, layers="all"))
    (folder / "damaged.ohm").write_bytes(b"\x93OHM" + bytes(30))
    (folder / "secret.txt").write_text("secret")
    (tmp_path / "outside.ohm").write_bytes(b"outside")
    return folder


@contextmanager
def running(handler: type[Any]) -> Iterator[str]:
    """Run a server and give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def run_fetch(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["fetch.py", *map(str, arguments)])
    fetch.main()


def test_each_request_gets_the_largest_cut_within_it(folder: Path) -> None:
    data = (folder / "a b.ohm").read_bytes()
    assert serve.answer(folder, "/a%20b.ohm") == (HTTPStatus.OK, "image/x-ohm", data)
    cuts = [truncate_ohm(data, num_layers=n) for n in range(1, 7)]
    for cut in cuts:
        size = len(cut)
        assert serve.answer(folder, f"/a%20b.ohm?max_bytes={size}").body == cut
        assert serve.answer(folder, f"/a%20b.ohm?bpp={8 * (size + 0.5) / (84 * 56)}").body == cut
    assert serve.answer(folder, f"/a%20b.ohm?max_bytes={len(cuts[3]) - 1}").body == cuts[2]


@pytest.mark.parametrize(
    ("target", "status", "text"),
    [
        ("/", HTTPStatus.NOT_FOUND, "there is no '' here"),
        ("/b.ohm", HTTPStatus.NOT_FOUND, "there is no 'b.ohm' here"),
        ("/secret.txt", HTTPStatus.NOT_FOUND, "there is no 'secret.txt' here"),
        ("/../outside.ohm", HTTPStatus.NOT_FOUND, "there is no '../outside.ohm' here"),
        ("/%2e%2e%2foutside.ohm", HTTPStatus.NOT_FOUND, "there is no '../outside.ohm' here"),
        ("/a%20b.ohm?quality=9", HTTPStatus.BAD_REQUEST, "ask for at most one of bpp, max_bytes"),
        ("/a%20b.ohm?bpp=1&max_bytes=900", HTTPStatus.BAD_REQUEST, "ask for at most one of bpp, max_bytes"),
        ("/a%20b.ohm?bpp=", HTTPStatus.BAD_REQUEST, "could not convert"),
        ("/a%20b.ohm?bpp=nan", HTTPStatus.BAD_REQUEST, "bpp is nan; it must be positive"),
        ("/a%20b.ohm?max_bytes=9", HTTPStatus.BAD_REQUEST, "the smallest possible"),
        ("/damaged.ohm", HTTPStatus.OK, ""),
        ("/damaged.ohm?bpp=1", HTTPStatus.INTERNAL_SERVER_ERROR, "damaged.ohm: "),
    ],
)
def test_impossible_requests_are_refused_in_one_line(folder: Path, target: str, status: HTTPStatus, text: str) -> None:
    answer = serve.answer(folder, target)
    assert answer.status == status
    if status != HTTPStatus.OK:
        assert answer.kind.startswith("text/plain")
        line = answer.body.decode()
        assert text in line and line.count("\n") == 1 and line.endswith("\n")


def test_a_client_shows_an_image_before_the_rest_is_sent(
    folder: Path,
    tmp_path: Path,
    codec: Codec,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = (folder / "a b.ohm").read_bytes()
    header = read_header(data)
    output = tmp_path / "out" / "latest.png"
    shown = []

    class Waiting(serve.Handler):  # type: ignore[name-defined,misc]
        """Handler that sends the first layer, and the rest once its image was written."""

        def pieces(self, body: bytes) -> Iterator[bytes]:
            first = header.header_bytes + header.layers[0].length
            yield body[:first]
            end = time.monotonic() + PATIENCE_S
            while not output.exists() and time.monotonic() < end:
                time.sleep(0.01)
            with Image.open(output) as image:
                shown.append(image.convert("L").tobytes())
            yield body[first:]

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    Waiting.folder = folder
    with running(Waiting) as address:
        run_fetch(monkeypatch, f"{address}/a%20b.ohm", "-o", output, "-m", model)
    first = codec.decompress(truncate_ohm(data, num_layers=1))
    assert shown == [first.tobytes()]
    with Image.open(output) as image:
        assert image.tobytes() == codec.decompress(data).tobytes() != first.tobytes()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"layer  {n}" for n in range(1, 7)]
    assert f"{len(data)} of {len(data)} bytes" in lines[-1]


def test_a_connection_that_breaks_leaves_the_best_image(
    folder: Path,
    tmp_path: Path,
    codec: Codec,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = (folder / "a b.ohm").read_bytes()
    kept = len(truncate_ohm(data, num_layers=3))

    class Breaking(serve.Handler):  # type: ignore[name-defined,misc]
        """Handler that ends inside a layer."""

        def pieces(self, body: bytes) -> Iterator[bytes]:
            yield body[: kept + 40]

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    Breaking.folder = folder
    with running(Breaking) as address:
        run_fetch(monkeypatch, f"{address}/a%20b.ohm", "-o", tmp_path / "latest.png", "-m", model)
    captured = capsys.readouterr()
    layers = len(captured.out.splitlines())
    assert 1 <= layers < 6
    assert captured.err == "the connection ended early: the image is the best of what arrived\n"
    with Image.open(tmp_path / "latest.png") as image:
        assert image.tobytes() == codec.decompress(truncate_ohm(data, num_layers=layers)).tobytes()


def test_a_client_reports_errors_in_one_line(
    folder: Path, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quiet(serve.Handler):  # type: ignore[name-defined,misc]
        """Handler without a log."""

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    Quiet.folder = folder
    output = tmp_path / "latest.png"
    with running(Quiet) as address:
        with pytest.raises(SystemExit, match=r"^error: 400 Bad Request: .*the smallest possible$"):
            run_fetch(monkeypatch, f"{address}/a%20b.ohm?max_bytes=1", "-o", output, "-m", model)
        with pytest.raises(SystemExit, match=r"^error: the file was made with model .*, this is mnist-ohm"):
            run_fetch(monkeypatch, f"{address}/a%20b.ohm", "-o", output, "-m", "mnist-ohm")
        with pytest.raises(SystemExit, match=r"^error: no model 'nothing_there'"):
            run_fetch(monkeypatch, f"{address}/a%20b.ohm", "-o", output, "-m", "nothing_there")
    with pytest.raises(SystemExit, match=r"^error: .*refused"):
        run_fetch(monkeypatch, f"{address}/a%20b.ohm", "-o", output, "-m", model)
    assert not output.exists()


def test_a_slow_line_is_imitated_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(serve.time, "sleep", waits.append)
    handler = serve.Handler.__new__(serve.Handler)
    assert list(handler.pieces(bytes(5000))) == [bytes(5000)]
    handler.bytes_per_second = 20000
    assert [len(piece) for piece in handler.pieces(bytes(5000))] == [2000, 2000, 1000]
    assert waits == [0.1] * 3
