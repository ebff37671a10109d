"""Run the server: MiniStack with our services, on 127.0.0.1, over TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import ssl
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import trustme

from local_aws.client.environment import REGION, base_environment, state_folder
from local_aws.server.clock import Clock

_ACCOUNT = "123456789012"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(port: int, speed: float, *, auth: bool) -> int:
    """Serve until the process gets SIGINT or SIGTERM.

    Args:
        port: The TCP port on 127.0.0.1. With 0, the system chooses a free one.
        speed: Seconds of AWS time in a real second.
        auth: Whether IAM is enforced.

    Returns:
        An exit code if the port is not available. Otherwise the process ends here.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        sys.stderr.write(
            f"port {port} on 127.0.0.1 is not available ({error}): use another --port\n"
        )
        return 1
    port = listener.getsockname()[1]
    for number in _SIGNALS:
        signal.signal(number, lambda *_: sys.exit(0))  # until the event loop handles them
    folder = state_folder(port)
    _remove_leftovers(folder.parent)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "tmp").mkdir(parents=True)
        (folder / "pid").write_text(str(os.getpid()))
        _make_certificates(folder)
        _prepare_environment(folder, port, auth=auth)
        asyncio.new_event_loop().run_until_complete(
            _serve(listener, port, Clock(speed, folder / "clock"))
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    # Without os._exit, MiniStack's threads would wait for functions and timers that never end.
    os._exit(0)


def _remove_leftovers(parent: Path) -> None:
    """Remove the folders of servers that were killed."""
    for pid in parent.glob("*/pid"):
        try:
            os.kill(int(pid.read_text()), 0)
        except ProcessLookupError:
            shutil.rmtree(pid.parent, ignore_errors=True)
        except (
            OSError,
            ValueError,
        ):  # The process of another user, or a file that is not written yet.
            continue


def _make_certificates(folder: Path) -> None:
    authority = trustme.CA(organization_name="local_aws")
    server = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    # Some variables replace all root certificates of a program, which may call more than AWS.
    roots = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
    known = Path(roots).read_bytes() if roots and Path(roots).is_file() else b""
    (folder / "bundle.pem").write_bytes(known + b"\n" + authority.cert_pem.bytes())
    (folder / "server.key").touch(mode=0o600)
    server.private_key_pem.write_to_path(folder / "server.key")
    for pem in server.cert_chain_pems:
        pem.write_to_path(folder / "server.pem", append=True)


def _prepare_environment(folder: Path, port: int, *, auth: bool) -> None:
    """Set what MiniStack reads when it is imported, and what its Lambda workers inherit."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= base_environment(port) | {
        "AUTH": str(auth).lower(),
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "LAMBDA_EXECUTOR": "local",
        "LOG_LEVEL": os.environ.get("LOG_LEVEL", "WARNING"),
        "MINISTACK_ACCOUNT_ID": _ACCOUNT,
        "MINISTACK_HOST": "localhost",
        "MINISTACK_REGION": REGION,
        "MINISTACK_SSL_CERT": str(folder / "server.pem"),
        "MINISTACK_SSL_KEY": str(folder / "server.key"),
        "PERSIST_STATE": "0",
        "SFTP_ENABLED": "0",
        "TMPDIR": str(folder / "tmp"),
        "USE_SSL": "1",
    }
    tempfile.tempdir = None  # tempfile reads TMPDIR again


async def _serve(listener: socket.socket, port: int, clock: Clock) -> None:
    # MiniStack, and all that imports it, must be imported after the environment is set.
    from hypercorn.asyncio import serve as hypercorn_serve  # noqa: PLC0415
    from hypercorn.config import Config  # noqa: PLC0415

    from local_aws import seams  # noqa: PLC0415
    from local_aws.server.app import make_app  # noqa: PLC0415

    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.certfile = os.environ["MINISTACK_SSL_CERT"]
    config.keyfile = os.environ["MINISTACK_SSL_KEY"]
    config.keep_alive_timeout = 75
    config.loglevel = "WARNING"
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.set_exception_handler(_report)
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    # Without this trigger, hypercorn would handle the signals and wait for idle connections.
    serving = hypercorn_serve(make_app(clock), config, shutdown_trigger=asyncio.Event().wait)
    tasks = [asyncio.create_task(serving), asyncio.create_task(stop.wait())]
    announcement = asyncio.create_task(_announce(port))
    ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    announcement.cancel()
    seams.end_functions()
    for task in ended:
        task.result()  # raises the error that ended the server, if there is one


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # A client that disconnects without closing TLS is no error of the server.
    if "SSL shutdown timed out" not in str(context.get("exception")):
        loop.default_exception_handler(context)


async def _announce(port: int) -> None:
    while True:
        with suppress(OSError):  # refused until hypercorn listens
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            sys.stdout.write(f"ready https://localhost:{port}\n")
            sys.stdout.flush()
            return
        await asyncio.sleep(0.01)
