"""An HTTP proxy before an S3 server that fails on purpose and counts requests."""

import collections
import contextlib
import http.client
import http.server
import re
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass

from support.s3_server import S3Server

__all__ = ["Fault", "FaultyProxy", "faulty_proxy"]

_REPLIES = {
    "SlowDown": (503, "Please reduce your request rate."),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "AccessDenied": (403, "Access Denied"),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist in our records."),
}


@dataclass
class Fault:
    """Something that goes wrong with some requests.

    Attributes:
        kind: "SlowDown" (503), "InternalError" (500), "NoSuchKey" (404), "AccessDenied" or "InvalidAccessKeyId" (403): the
            answer, and the server is not asked; "reset": the connection breaks in the middle of the body that the server
            sends, or, for a put, of the one that the client sends; "lost": the server does it, and its answer is lost;
            "delay": all is well, but late.
        method: HTTP method. Default: any.
        key: regular expression that the bucket and key must match from their start, such as "bucket/raw/". Default: any.
        times: number of requests to fail.
        delay_s: seconds of "delay".
    """

    kind: str
    method: str = ""
    key: str = ""
    times: int = 1
    delay_s: float = 0.0


class FaultyProxy:
    """A running proxy.

    Attributes:
        server: where clients shall connect to: the proxy with the credentials of the server behind it.
        faults: what goes wrong; the first fault that fits a request and has times left is applied.
        requests: number of requests by (method, bucket/key); listings are ("LIST", bucket/prefix).
    """

    def __init__(self, behind: S3Server):
        self.faults: list[Fault] = []
        self.requests: collections.Counter[tuple[str, str]] = collections.Counter()
        self._lock = threading.Lock()
        self._host = behind.endpoint.removeprefix("http://")
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.server = behind._replace(endpoint=f"http://127.0.0.1:{self._server.server_port}")
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the proxy."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, method: str, key: str = "") -> int:
        """Return the number of requests whose bucket and key match a regular expression from their start."""
        with self._lock:
            return sum(n for (name, path), n in self.requests.items() if name == method and re.match(key, path))

    def _record(self, method: str, target: str) -> Fault | None:
        """Count a request and take a fault for it."""
        path, _, query = target.partition("?")
        path = urllib.parse.unquote(path).lstrip("/")
        arguments = urllib.parse.parse_qs(query)
        if method == "GET" and "list-type" in arguments:
            method, path = "LIST", f"{path.rstrip('/')}/{arguments.get('prefix', [''])[0]}"
        with self._lock:
            self.requests[method, path] += 1
            for fault in self.faults:
                if fault.times > 0 and fault.method in ("", method) and re.match(fault.key, path):
                    fault.times -= 1
                    return fault
        return None

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):  # clients may leave
                    super().handle_one_request()

            def log_message(self, format: str, *args: object) -> None:
                pass

            def serve(self) -> None:
                fault = proxy._record(self.command, self.path)
                kind = fault.kind if fault else ""
                if "100-continue" in self.headers.get("Expect", "").lower() and kind in _REPLIES:
                    self.close_connection = True
                length = int(self.headers.get("Content-Length") or 0)
                if kind == "reset" and self.command == "PUT":
                    self.rfile.read(length // 2)
                    return self.reset()
                body = (
                    self._chunked() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
                )
                if fault and kind == "delay":
                    time.sleep(fault.delay_s)
                if kind in _REPLIES:
                    return self.refuse(kind)
                connection = http.client.HTTPConnection(proxy._host, timeout=60)
                try:
                    skipped = ("connection", "expect", "transfer-encoding", "content-length")
                    headers = {name: value for name, value in self.headers.items() if name.lower() not in skipped}
                    if body or self.command in ("PUT", "POST"):
                        headers["Content-Length"] = str(len(body))
                    connection.request(self.command, self.path, body or None, headers)
                    reply = connection.getresponse()
                    content = reply.read()
                    if kind == "lost":
                        return self.reset()
                    self.send_response(reply.status)
                    for name, value in reply.getheaders():
                        if name.lower() not in ("transfer-encoding", "connection", "content-length", "server", "date"):
                            self.send_header(name, value)
                    sent = reply.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
                    self.send_header("Content-Length", sent or "0")
                    self.end_headers()
                    if kind == "reset":
                        self.wfile.write(content[: len(content) // 2])
                        self.wfile.flush()
                        return self.reset()
                    self.wfile.write(content)
                finally:
                    connection.close()

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve

            def _chunked(self) -> bytes:
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def refuse(self, code: str) -> None:
                status, message = _REPLIES[code]
                text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text)

            def reset(self) -> None:
                """Break the connection with a TCP reset."""
                self.close_connection = True
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

        return Handler


@contextlib.contextmanager
def faulty_proxy(behind: S3Server) -> Iterator[FaultyProxy]:
    """Run a proxy before a server for the block."""
    proxy = FaultyProxy(behind)
    try:
        yield proxy
    finally:
        proxy.close()
