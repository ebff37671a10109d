"""An HTTPS server behind ResponseURLs, for tests of what goes over the wire."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from typing import TYPE_CHECKING, Any, Self

from tests.support.cloudformation import SIGNATURE

if TYPE_CHECKING:
    from pathlib import Path


class ResponseUrls:
    """Receives responses; replies with HTTP 200, or with what `replies` says first.

    Attributes:
        responses: The responses that were accepted, in order.
        bodies: Their bodies.
        content_types: Their content types.
        replies: HTTP statuses of the next replies. None: the connection is closed.
    """

    def __init__(self, certificate: Path) -> None:
        self.responses: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.content_types: list[str | None] = []
        self.replies: list[int | None] = []
        urls = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                reply = urls.replies.pop(0) if urls.replies else 200
                if reply is None:
                    self.connection.close()
                    return
                if reply == 200:
                    urls.bodies.append(body)
                    urls.responses.append(json.loads(body))
                    urls.content_types.append(self.headers["Content-Type"])
                self.send_response(reply)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}/arn?{SIGNATURE}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
