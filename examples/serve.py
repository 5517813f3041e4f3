"""Serve .ohm files at the rate that each client asks for: the first layers of one file. No model is needed.

    python examples/serve.py FOLDER [--port 8000]

    GET /coffee.ohm                    the whole file
    GET /coffee.ohm?bpp=0.2            its largest cut of at most 0.2 bits per pixel
    GET /coffee.ohm?max_bytes=6000     its largest cut of at most 6000 bytes

It needs the standard library and ohmq.bitstream, which needs no more either.
"""

import argparse
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from ohmq.bitstream.truncate import truncate_ohm
from ohmq.errors import BitstreamError

LIMITS = {"bpp": float, "max_bytes": int}
"""Types of the limits that a query may give: bits per pixel, or bytes."""


class Answer(NamedTuple):
    """HTTP answer: status, content type, body."""

    status: HTTPStatus
    kind: str
    body: bytes


def _refusal(status: HTTPStatus, text: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def answer(folder: Path, target: str) -> Answer:
    """Answer a request for a file or its largest cut within a limit.

    Args:
        folder: folder of .ohm files.
        target: path and query, such as /coffee.ohm?bpp=0.2

    Returns:
        The file or its cut, or one line of text that says what is wrong.
    """
    parts = urlsplit(target)
    name = unquote(parts.path).removeprefix("/")
    file = {path.name: path for path in folder.glob("*.ohm")}.get(name)
    if file is None:
        return _refusal(HTTPStatus.NOT_FOUND, f"there is no {name!r} here")
    query = parse_qsl(parts.query, keep_blank_values=True)
    if len(query) > 1 or any(key not in LIMITS for key, _ in query):
        return _refusal(HTTPStatus.BAD_REQUEST, f"ask for at most one of {', '.join(LIMITS)}")
    try:
        data = file.read_bytes()
        for key, value in query:
            data = truncate_ohm(data, **{key: LIMITS[key](value)})
    except ValueError as error:
        return _refusal(HTTPStatus.BAD_REQUEST, str(error))
    except BitstreamError as error:
        return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, f"{name}: {error}")
    return Answer(HTTPStatus.OK, "image/x-ohm", data)


class Handler(BaseHTTPRequestHandler):
    """Handler of GET requests for the files of a folder.

    Attributes:
        folder: folder of .ohm files.
        bytes_per_second: rate of the slow line that is imitated; 0: as fast as possible.
    """

    folder = Path()
    bytes_per_second = 0

    def do_GET(self) -> None:
        """Send the answer to a request."""
        status, kind, body = answer(self.folder, self.path)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for piece in self.pieces(body):
            self.wfile.write(piece)

    def pieces(self, body: bytes) -> Iterator[bytes]:
        """Yield the body in the pieces that are sent at a time: a tenth of a second of a slow line each."""
        if not self.bytes_per_second:
            yield body
            return
        size = max(1, self.bytes_per_second // 10)
        for start in range(0, len(body), size):
            yield body[start : start + size]
            time.sleep(0.1)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of .ohm files, each with all its layers")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--bytes-per-second", type=int, default=0, help="imitate a slow line")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        parser.error(f"{arguments.folder} is not a folder")
    Handler.folder, Handler.bytes_per_second = arguments.folder, arguments.bytes_per_second
    with ThreadingHTTPServer((arguments.host, arguments.port), Handler) as server:
        host, port = server.server_address[:2]
        print(f"serving the .ohm files of {arguments.folder} at http://{host}:{port}/", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    main()
