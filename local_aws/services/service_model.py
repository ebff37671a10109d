"""Read, check and write the requests and responses of a service by botocore's model of it.

Only this module knows the protocols. An operation is a function from the parsed request to the
response. Both are checked against the model here, so operations do not repeat these checks.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import re
import uuid
from abc import ABC, abstractmethod
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, Final
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from moto.core.parse import PROTOCOL_PARSERS
from moto.core.serialize import SerializationContext, get_serializer_class
from moto.core.utils import get_service_model

from local_aws import seams
from local_aws.server.past import Past
from local_aws.server.world import CALLER
from local_aws.services.lambda_.functions import kill_caller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from local_aws.server.world import World

    Operation = Callable[[dict[str, Any]], dict[str, Any]]
    Response = tuple[int, dict[str, str], bytes]
    Handler = Callable[[str, str, dict[str, str], bytes, dict[str, list[str]]], Awaitable[Response]]

log = logging.getLogger(__name__)

# A service adds the request id of its response, so that the header that MiniStack adds can have
# the same id as the body.
REQUEST_IDS: ContextVar[list[str]] = ContextVar("request_ids")

# What the names of operations that change nothing begin with.
_READS: Final = ("Describe", "Get", "List")
_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "structure": dict,
    "map": dict,
    "list": list,
    "timestamp": datetime,
    "blob": bytes,
}


class ServiceError(Exception):
    """An error response of a service.

    Args:
        code: The error code, such as `ResourceNotFoundException`.
        message: The error message.
        status: The HTTP status. Default: that of the model's shape of that name, or 400.
    """

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        """Set code, message and status."""
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Problem:
    """A violation of the model: where it is in a value, and why.

    Attributes:
        path: Where it is.
        why: What the model requires.
        missing: Whether a required member is missing.
        seen_in_responses: Whether documented responses of AWS have the same violation.
    """

    path: str
    why: str
    missing: bool = False
    seen_in_responses: bool = False


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    # Python's $ also matches before a final line feed.
    return re.compile(pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern)


def problems(shape: Any, value: Any, path: str = "") -> Iterator[Problem]:  # noqa: ANN401 - shapes are untyped, values JSON
    """Yield the violations of a shape in a value."""
    kind = shape.type_name
    if not isinstance(value, _TYPES[kind]) or (kind != "boolean" and isinstance(value, bool)):
        yield Problem(path, f"expected a {kind}, got {type(value).__name__}")
    else:
        yield from _constraint_problems(shape, value, path)
        yield from _member_problems(shape, value, path)


def response_problems(shape: Any, response: Any) -> Iterator[Problem]:  # noqa: ANN401
    """Yield the violations of a shape in a response.

    AWS documents two violations of its models. A resource of Image Builder without tags has an
    empty map of tags, although the model requires at least one tag. The platform of an AMI is
    `windows`, although the model has `Windows`.
    """
    return (found for found in problems(shape, response) if not found.seen_in_responses)


def _member_problems(shape: Any, value: Any, path: str) -> Iterator[Problem]:  # noqa: ANN401
    match shape.type_name:
        case "structure":
            prefix = f"{path}." if path else ""
            for name in shape.required_members:
                if name not in value:
                    yield Problem(prefix + name, "it is required", missing=True)
            for name, member in value.items():
                if name in shape.members:
                    yield from problems(shape.members[name], member, prefix + name)
                else:
                    yield Problem(prefix + name, "this member does not exist")
        case "list":
            for index, item in enumerate(value):
                yield from problems(shape.member, item, f"{path}[{index}]")
        case "map":
            for key, item in value.items():
                yield from problems(shape.key, key, f"{path}.key({key})")
                yield from problems(shape.value, item, f"{path}.{key}")


def _constraint_problems(shape: Any, value: Any, path: str) -> Iterator[Problem]:  # noqa: ANN401
    size = len(value) if hasattr(value, "__len__") else value
    what = "length" if hasattr(value, "__len__") else "value"
    if "min" in shape.metadata and size < shape.metadata["min"]:
        why = f"the {what} must be at least {shape.metadata['min']}"
        yield Problem(path, why, seen_in_responses=value == {})
    if "max" in shape.metadata and size > shape.metadata["max"]:
        yield Problem(path, f"the {what} must be at most {shape.metadata['max']}")
    if allowed := shape.metadata.get("enum"):
        if value not in allowed:
            differs_in_case = str(value).lower() in map(str.lower, allowed)
            why = f"it must be one of {', '.join(allowed)}"
            yield Problem(path, why, seen_in_responses=differs_in_case)
    elif "pattern" in shape.metadata and not _pattern(shape.metadata["pattern"]).search(value):
        yield Problem(path, f"it must match {shape.metadata['pattern']}")


class Service(ABC):
    """The operations of one service, in its wire protocol.

    Args:
        name: botocore's name of the service.
        operations: Our implementations by operation name.
        world: The state shared with the other services.
        authorize: Raises the service's error for a request that its caller may not make.
        stores: What the operations change: MiniStack's dictionaries of all accounts and Regions.
    """

    protocol: ClassVar[str]

    def __init__(
        self,
        name: str,
        operations: Mapping[str, Operation],
        world: World,
        authorize: Callable[[str, dict[str, Any]], None],
        stores: Sequence[Any],
    ) -> None:
        """Load the model."""
        self.name = name
        self.operations = operations
        self._authorize = authorize
        self.model = get_service_model(name)
        self._world = world
        self._stores = stores
        self._past: Past[list[dict[Any, Any]]] = Past(
            world.now, lambda: world.knobs.read_lag_seconds
        )
        world.operations |= {(name, operation) for operation in operations}
        world.before_changes.append(self._keep_the_past)

    @abstractmethod
    def _refusal(self, operation: Any, found: Problem) -> ServiceError:  # noqa: ANN401
        """Return the service's error for a request that violates the model."""

    @abstractmethod
    def _throttled(self) -> ServiceError:
        """Return the service's throttling error."""

    @abstractmethod
    def _write_error(self, error: ServiceError, request_id: str) -> Response:
        """Return an error as the protocol writes it."""

    def call(self, name: str, request: dict[str, Any], request_id: str = "") -> dict[str, Any]:
        """Perform an operation, and check request and response.

        Args:
            name: The operation.
            request: Its parsed request.
            request_id: The id of a request from outside, which sees changes late. Default: it is
                AWS's own, such as one of CloudFormation's handlers, which wait for their changes.

        Raises:
            ServiceError: The error response of the service.
        """
        operation = self.model.operation_model(name)
        for found in problems(operation.input_shape, request):
            raise self._refusal(operation, found)
        with self._world.lock:
            self._world.clock.settle()
            past = self._past.shown() if request_id else None
            with self._as_of(past):
                self._authorize(name, request)
            with self._as_of(self._used_by(name, past)):
                response = self.operations[name](copy.deepcopy(request))
        shape = operation.output_shape
        if shape and request_id and "requestId" in shape.members:
            response = {"requestId": request_id, **response}
        for found in response_problems(shape, response) if shape else ():
            raise ValueError(
                f"our response to {name} violates the model at {found.path}: {found.why}"
            )
        return response

    def forget_the_past(self) -> None:
        """Let reads show the present, for example after everything was deleted."""
        self._past.forget()

    def _used_by(self, name: str, past: list[dict[Any, Any]] | None) -> list[dict[Any, Any]] | None:
        """Return the past for a read; otherwise keep it, and return None for the present."""
        if name.startswith(_READS):
            return past
        self._keep_the_past()
        return None

    def _keep_the_past(self) -> None:
        """Keep what reads still show after a change."""
        if self._world.knobs.read_lag_seconds:
            self._past.keep([copy.deepcopy(seams.contents(store)) for store in self._stores])

    @contextmanager
    def _as_of(self, past: list[dict[Any, Any]] | None) -> Iterator[None]:
        """Have the stores as they were a while ago."""
        present = [seams.contents(store) for store in self._stores]
        try:
            self._show(past or present)
            yield
        finally:
            self._show(present)

    def _show(self, contents: Sequence[dict[Any, Any]]) -> None:
        for store, content in zip(self._stores, contents, strict=True):
            seams.put_contents(store, content)

    async def _respond(self, name: str, parse: Callable[[Any], dict[str, Any]]) -> Response:
        request_id = str(uuid.uuid4())
        REQUEST_IDS.get([]).append(request_id)
        record: dict[str, Any] = {"service": self.name, "operation": name}
        record |= {"request": None, "error": None}
        self._world.calls.append(record)
        fault = self._world.take_fault(self.name, name)
        try:
            if fault:
                await asyncio.sleep(fault.delay)
                if fault.kill == "before":
                    kill_caller(CALLER.get())
                    return 500, {}, b""
                if fault.throttle:
                    raise self._throttled()  # noqa: TRY301 - handled below, as errors of operations
                if fault.error:
                    raise ServiceError(**fault.error)  # noqa: TRY301
            operation = self.model.operation_model(name)
            record["request"] = request = parse(operation)
            result = self.call(name, request, request_id)
            serializer = get_serializer_class(self.name, self.protocol)(
                operation, context=SerializationContext(request_id)
            )
            response = serializer.serialize(result)
        except ServiceError as error:
            record["error"] = error.code
            return self._write_error(error, request_id)
        except Exception as error:
            log.exception("%s:%s failed", self.name, name)
            record["error"] = "InternalFailure"
            return self._write_error(
                ServiceError("InternalFailure", f"local_aws has a bug: {error}", 500), request_id
            )
        if fault and fault.kill:
            kill_caller(CALLER.get())
        if fault and (fault.lose_answer or fault.kill):
            return 500, {}, b""
        return response["status_code"], dict(response["headers"]), response["body"].encode()


class RestJsonService(Service):
    """A service with the protocol rest-json, of which we serve all operations."""

    protocol = "rest-json"
    # The errors for a request that violates the model, in order of preference.
    _REFUSALS = ("InvalidParameterException", "InvalidRequestException", "ClientException")

    def __init__(
        self,
        name: str,
        operations: Mapping[str, Operation],
        world: World,
        authorize: Callable[[str, dict[str, Any]], None],
        stores: Sequence[Any],
    ) -> None:
        """Compile the routes."""
        super().__init__(name, operations, world, authorize, stores)
        self._routes = []
        for operation_name in self.model.operation_names:
            http = self.model.operation_model(operation_name).http
            pattern = re.sub(r"\{(\w+)\+?\}", r"(?P<\1>.+)", http["requestUri"].split("?")[0])
            self._routes.append((http["method"], re.compile(pattern), operation_name))

    async def handle_request(
        self,
        method: str,
        path: str,
        _headers: dict[str, str],
        body: bytes,
        query: dict[str, list[str]],
    ) -> Response:
        """Handle a request, with the signature that MiniStack expects of its services."""
        for verb, pattern, name in self._routes:
            if verb == method and (match := pattern.fullmatch(path)):
                if name not in self.operations:
                    break
                labels = {label: unquote(value) for label, value in match.groupdict().items()}
                read = partial(_read_rest_json, labels=labels, query=query, body=body)
                return await self._respond(name, read)
        else:
            name = f"{method} {path}"
        error = ServiceError("UnsupportedOperation", f"local_aws does not serve {self.name}:{name}")
        return self._write_error(error, str(uuid.uuid4()))

    def _refusal(self, operation: Any, found: Problem) -> ServiceError:  # noqa: ANN401
        code: str = self._world.knobs.invalid_value_error
        if code == "declared":
            declared = {shape.name for shape in operation.error_shapes}
            code = next(code for code in self._REFUSALS if code in declared)
        return ServiceError(
            code,
            f"The value supplied for parameter '{found.path}' is not valid: {found.why}.",
        )

    def _throttled(self) -> ServiceError:
        return ServiceError("TooManyRequestsException", "Rate exceeded")

    def _write_error(self, error: ServiceError, _request_id: str) -> Response:
        status = error.status
        if status is None:
            known = error.code in self.model.shape_names
            shape = self.model.shape_for(error.code) if known else None
            status = shape.metadata["error"]["httpStatusCode"] if shape else 400
        headers = {"Content-Type": "application/json", "X-Amzn-Errortype": error.code}
        return status, headers, json.dumps({"message": error.message}).encode()


def _read_rest_json(
    operation: Any,  # noqa: ANN401
    labels: dict[str, str],
    query: dict[str, list[str]],
    body: bytes,
) -> dict[str, Any]:
    """Return the request by member.

    Moto's reader would convert members of a wrong type, which AWS refuses.
    """
    try:
        fields = json.loads(body or b"{}")
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise ServiceError("SerializationException", "the body is not a JSON object")
    request: dict[str, Any] = {}
    for name, shape in operation.input_shape.members.items():
        key = shape.serialization.get("name", name)
        match shape.serialization.get("location"):
            case "uri":
                request[name] = labels[key]
            case "querystring":
                if values := query.get(key):
                    request[name] = values if shape.type_name == "list" else values[0]
            case _:
                if fields.get(key) is not None:
                    request[name] = fields[key]
    return request


class _Query(dict[str, str]):
    """The parameters of a query request, which record which of them were read."""

    def __init__(self, parameters: dict[str, str]) -> None:
        super().__init__(parameters)
        self.unread = set(parameters) - {"Action", "Version"}

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401
        self.unread.discard(key)
        return super().get(key, default)


class Ec2QueryService(Service):
    """Our operations of EC2. MiniStack serves all others.

    Args:
        operations: Our implementations by operation name.
        world: The state shared with the other services.
        authorize: As in `Service`.
        stores: As in `Service`.
        others: MiniStack's own handler.
    """

    protocol = "ec2"

    def __init__(
        self,
        operations: Mapping[str, Operation],
        world: World,
        authorize: Callable[[str, dict[str, Any]], None],
        stores: Sequence[Any],
        others: Handler,
    ) -> None:
        """Keep MiniStack's handler for the other operations."""
        super().__init__("ec2", operations, world, authorize, stores)
        self._others = others

    async def handle_request(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes,
        query: dict[str, list[str]],
    ) -> Response:
        """Handle a request, with the signature that MiniStack expects of its services."""
        sent = {**query, **parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)}
        name = sent.get("Action", [""])[0]
        if name not in self.operations:
            with self._world.lock, self._as_of(self._used_by(name, self._past.shown())):
                # MiniStack's handler does not suspend, so nothing else sees the past.
                return await self._others(method, path, headers, body, query)
        parameters = {key: values[0] for key, values in sent.items()}
        return await self._respond(name, partial(_read_query, parameters=parameters))

    def _refusal(self, _operation: Any, found: Problem) -> ServiceError:  # noqa: ANN401
        if found.missing:
            return ServiceError(
                "MissingParameter", f"The request must contain the parameter {found.path}"
            )
        return ServiceError(
            "InvalidParameterValue", f"Invalid value for parameter {found.path}: {found.why}"
        )

    def _throttled(self) -> ServiceError:
        return ServiceError("RequestLimitExceeded", "Request limit exceeded.", 503)

    def _write_error(self, error: ServiceError, request_id: str) -> Response:
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error>'
            f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
            f"</Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
        return error.status or 400, {"Content-Type": "text/xml;charset=UTF-8"}, body.encode()


def _read_query(operation: Any, parameters: dict[str, str]) -> dict[str, Any]:  # noqa: ANN401
    query = _Query(parameters)
    try:
        request: dict[str, Any] = PROTOCOL_PARSERS["ec2"](operation).parse({"values": query})
    except (ValueError, TypeError) as error:
        raise ServiceError("InvalidParameterValue", str(error)) from None
    if query.unread:
        name = min(query.unread)
        raise ServiceError("UnknownParameter", f"The parameter {name} is not recognized")
    return request


def refuse_dry_run(request: dict[str, Any]) -> None:
    """End an EC2 request with DryRun, which only checks whether the request would be allowed.

    Raises:
        ServiceError: The request has DryRun.
    """
    if request.get("DryRun"):
        raise ServiceError(
            "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412
        )
