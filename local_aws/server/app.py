"""Add our services to MiniStack, and serve both and the control API as one ASGI application."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from local_aws import seams
from local_aws.server import control
from local_aws.server.world import CALLER, World
from local_aws.services.cloudformation import (
    exports,
    resource_types,
    response_urls,
    stack_operations,
    stack_updates,
    template_conditions,
)
from local_aws.services.cloudformation.stack_reads import StackReads
from local_aws.services.ec2 import descriptions, images, tags
from local_aws.services.ec2.image_attributes import ImageAttributes
from local_aws.services.ec2.permissions import ec2_checks
from local_aws.services.ec2.vm_import import VmImport
from local_aws.services.iam import execution_role, role_policies, service_roles
from local_aws.services.iam.authorization import authorize, authorize_ourselves
from local_aws.services.imagebuilder.image_builder import ImageBuilder
from local_aws.services.imagebuilder.permissions import ImageBuilderChecks
from local_aws.services.lambda_ import functions
from local_aws.services.service_model import REQUEST_IDS, Ec2QueryService, RestJsonService
from local_aws.services.stepfunctions import aws_time, executions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from local_aws.server.clock import Clock

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Message, Receive, Send], Awaitable[None]]


def make_app(clock: Clock) -> App:
    """Return the application, after changing MiniStack for the whole process.

    Args:
        clock: The AWS time of the server.
    """
    seams.check()
    world = World(clock)
    vm_import = VmImport(world)
    image_builder = ImageBuilder(world, vm_import)
    image_builder_checks = ImageBuilderChecks(world, image_builder)

    def authorize_image_builder(operation: str, request: dict[str, Any]) -> None:
        checks = image_builder_checks(operation, request)
        authorize(checks, "AccessDeniedException")

    def authorize_ec2(operation: str, request: dict[str, Any]) -> None:
        checks = ec2_checks(operation, request)
        preface = "You are not authorized to perform this operation. "
        authorize(checks, "UnauthorizedOperation", preface)

    image_builder_service = RestJsonService(
        "imagebuilder",
        image_builder.operations,
        world,
        authorize_image_builder,
        image_builder.resources,
    )
    ec2_service = Ec2QueryService(
        vm_import.operations
        | ImageAttributes(world).operations
        | descriptions.OPERATIONS
        | images.OPERATIONS
        | tags.OPERATIONS,
        world,
        authorize_ec2,
        vm_import.resources,
        seams.handle_ec2_request,
    )

    stack_reads = StackReads(world)

    def reset() -> None:
        image_builder.reset()
        stack_reads.forget_the_past()
        image_builder_service.forget_the_past()
        ec2_service.forget_the_past()

    _serve(image_builder_service, ec2_service, reset)
    authorize_ourselves(world.operations)
    _change_ministack(world, image_builder_service)

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await seams.ministack(scope, receive, send)
        elif scope["path"].startswith(control.PREFIX):
            status, body = control.respond(
                world, scope["method"], scope["path"], await _body(receive)
            )
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        elif fault := response_urls.fault(world, scope):
            await response_urls.deliver_with_fault(fault, scope, receive, send)
        else:
            with world.lock:
                clock.settle()
            CALLER.set(_access_key(scope))
            await seams.ministack(scope, receive, _with_our_request_id(send))

    return app


def _serve(
    image_builder: RestJsonService, ec2_service: Ec2QueryService, reset: Callable[[], None]
) -> None:
    """Have MiniStack serve Image Builder and our operations of EC2.

    Args:
        image_builder: Image Builder, which MiniStack does not know.
        ec2_service: EC2.
        reset: Deletes everything in them, on POST /_ministack/reset.
    """
    seams.SERVICE_REGISTRY.put({"module": "imagebuilder"})
    seams.IMAGE_BUILDER_HANDLER.put(image_builder.handle_request)
    seams.EC2_HANDLER.put(ec2_service.handle_request)
    # MiniStack calls `reset` of a service's module.
    seams.LOADED_MODULES.put(SimpleNamespace(reset=reset))
    seams.SERVICE_PATTERNS.put({"host_patterns": [r"imagebuilder\."]})


def _change_ministack(world: World, image_builder: RestJsonService) -> None:
    """Add what MiniStack's services lack."""
    resource_types.register(image_builder)
    functions.register(world)
    aws_time.register(world)
    executions.register(world)
    response_urls.register(world)
    role_policies.register(world)
    service_roles.register(world)
    template_conditions.register()
    exports.register()
    stack_operations.register(world)
    stack_updates.register(world)
    execution_role.register()
    world.operations |= {
        ("cloudformation", name) for name in ("CustomResourceEvent", "ResponseURL")
    }


def _access_key(scope: Message) -> str:
    headers = {name.decode("latin-1").lower(): v.decode("latin-1") for name, v in scope["headers"]}
    return str(seams.extract_access_key_id(headers, parse_qs(scope["query_string"].decode())))


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def _with_our_request_id(send: Send) -> Send:
    """Replace MiniStack's request id in the headers by ours, which is in the body."""
    ids: list[str] = []
    REQUEST_IDS.set(ids)

    async def send_with_id(message: Message) -> None:
        if ids and message["type"] == "http.response.start":
            message["headers"] = [
                (
                    name,
                    ids[0].encode()
                    if name in (b"x-amzn-requestid", b"x-amz-request-id")
                    else value,
                )
                for name, value in message["headers"]
            ]
        await send(message)

    return send_with_id
