"""CloudFormation's side of a custom resource: events out, answers in."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ACCOUNT = "123456789012"  # of the local AWS
REGION = "us-east-1"
SIGNATURE = "X-Amz-Signature=0123456789abcdef-not-for-logs"


@dataclass
class Context:
    """Lambda's context object."""

    seconds: float = 900
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    invoked_function_arn: str = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:VmImportProvider"
    function_name: str = "VmImportProvider"
    log_group_name: str = "/aws/lambda/VmImportProvider"
    log_stream_name: str = "2026/11/23/[$LATEST]0123456789abcdef"
    start: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self.seconds - (time.monotonic() - self.start)) * 1000))


class ResponseUrls:
    """The HTTPS server behind the ResponseURLs; it answers 200, or what `replies` says first."""

    def __init__(self, certificate: Path, bundle: Path) -> None:
        self.bundle = bundle
        self.answers: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.content_types: list[str | None] = []
        self.replies: list[int | None] = []  # an HTTP status, or None: hang up
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
                    urls.answers.append(json.loads(body))
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


@dataclass
class CustomResource:
    """One resource of one stack, through its life."""

    urls: ResponseUrls
    handler: Callable[[dict[str, Any], Any], object]
    properties: Mapping[str, Any] = field(default_factory=dict)
    logical_id: str = "GoldenImageF00D"
    stack_id: str = field(
        default_factory=lambda: (
            f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/images/{uuid.uuid4()}"
        )
    )
    physical_id: str | None = None

    def event(self, request_type: str, **more: Any) -> dict[str, Any]:
        event = {
            "RequestType": request_type,
            "RequestId": str(uuid.uuid4()),
            "StackId": self.stack_id,
            "ResponseURL": self.urls.url,
            "ResourceType": "Custom::ImportedVmImage",
            "LogicalResourceId": self.logical_id,
            "ResourceProperties": {"ServiceToken": "arn:aws:lambda:f", **self.properties},
        }
        return {**event, **more}

    def send(self, event: dict[str, Any], context: Context | None = None) -> dict[str, Any]:
        """Have the event handled; return the one answer."""
        before = len(self.urls.answers)
        self.handler(event, context or Context())
        (answer,) = self.urls.answers[before:]
        return answer

    def create(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        self.properties = properties
        answer = self.send(self.event("Create"))
        self.physical_id = answer["PhysicalResourceId"]
        return answer

    def update(self, properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        old, self.properties = self.properties, properties
        answer = self.send(
            self.event(
                "Update",
                PhysicalResourceId=more.pop("physical_id", self.physical_id),
                OldResourceProperties={"ServiceToken": "arn:aws:lambda:f", **old},
                **more,
            )
        )
        if answer["Status"] == "SUCCESS":
            self.physical_id = answer["PhysicalResourceId"]
        return answer

    def delete(
        self, physical_id: str | None = None, properties: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        event = self.event("Delete", PhysicalResourceId=physical_id or self.physical_id)
        if properties is not None:
            event["ResourceProperties"] = dict(properties)
        return self.send(event)
