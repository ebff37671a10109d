"""Let Lambda, Step Functions and CloudWatch Logs check their roles and keys if IAM is enforced.

MiniStack does not check them. Each function here adds one check to a service.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.services.iam.authorization import Check, role_may, service_may, service_may_assume

if TYPE_CHECKING:
    from collections.abc import Callable

    from local_aws.server.world import World

# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
_IN_A_VPC: Final = (
    "CreateNetworkInterface", "DescribeNetworkInterfaces", "DescribeSubnets",
    "DeleteNetworkInterface", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses",
)  # fmt: skip
# What MiniStack's operations on an encrypted state machine require of their caller.
_USES_OF_KEY: Final = {
    "_create_state_machine": ("kms:DescribeKey", "kms:GenerateDataKey"),
    "_update_state_machine": ("kms:DescribeKey", "kms:GenerateDataKey"),
    "_describe_state_machine": ("kms:Decrypt",),
    "_start_execution": ("kms:Decrypt", "kms:GenerateDataKey"),
    "_describe_execution": ("kms:Decrypt",),
    "_get_execution_history": ("kms:Decrypt",),
}
# The states in which a key cannot be used, as Step Functions and KMS name them.
_INVALID_STATES: Final = {
    "Disabled": "DISABLED",
    "PendingDeletion": "PENDING_DELETION",
    "PendingImport": "PENDING_IMPORT",
    # Inferred: the state of a key that does not exist.
    "": "UNAVAILABLE",
}
# The state machine whose task runs.
_MACHINE: ContextVar[dict[str, Any] | None] = ContextVar("machine", default=None)


class RoleError(Exception):
    """A role or a key does not allow a service to act."""


def register(world: World) -> None:
    """Add the checks for the whole process; those of permissions if IAM is enforced."""
    for operation, actions in _USES_OF_KEY.items():
        seams.ENCRYPTED_OPERATIONS.replace(
            partial(_only_with_the_key, world, operation, actions), operation
        )
    if not seams.iam_is_enforced():
        return
    seams.FUNCTION_TYPE.replace(partial(_before_create, _check_function))
    seams.LOG_GROUP_TYPE.replace(partial(_before_create, _check_log_group))
    seams.EMIT_LOGS.replace(_only_if_it_may_log)
    seams.EXECUTE_TASK.replace(_as_the_machine)
    seams.CALL_FUNCTION.replace(_only_if_it_may_call)


def _before_create(
    check: Callable[[dict[str, Any]], None], acts: dict[str, Callable[..., Any]]
) -> dict[str, Callable[..., Any]]:
    create = acts["create"]

    def checked(logical_id: str, properties: dict[str, Any], stack_name: str) -> Any:  # noqa: ANN401
        check(properties)
        return create(logical_id, properties, stack_name)

    return acts | {"create": checked}


def _check_function(properties: dict[str, Any]) -> None:
    """Check the role of a function.

    https://docs.aws.amazon.com/lambda/latest/dg/lambda-intro-execution-role.html
    """
    role = _role(properties["Role"])
    # The present role: CloudFormation repeats the creation until Lambda can assume a new role.
    if not service_may("lambda.amazonaws.com", "sts:AssumeRole", role["AssumeRolePolicyDocument"]):
        raise RoleError("The role defined for the function cannot be assumed by Lambda.")
    for action in _IN_A_VPC if properties.get("VpcConfig") else ():
        if not role_may(role["RoleName"], f"ec2:{action}", "*"):
            raise RoleError(
                f"The provided execution role does not have permissions to call {action} on EC2"
            )


def _check_log_group(properties: dict[str, Any]) -> None:
    """Check the key of a log group.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
    """
    key_id = properties.get("KmsKeyId")
    if not key_id:
        return
    key = seams.find_key(key_id)
    name = properties.get("LogGroupName", "*")
    group = f"arn:aws:logs:{seams.get_region()}:{seams.get_account_id()}:log-group:{name}"
    for action in ("Encrypt", "Decrypt", "ReEncryptFrom", "GenerateDataKey", "DescribeKey"):
        if key is None or not service_may(
            f"logs.{seams.get_region()}.amazonaws.com",
            f"kms:{action}",
            key["Policy"],
            {"kms:EncryptionContext:aws:logs:arn": group},
        ):
            raise RoleError(
                "The specified KMS key does not exist or is not allowed to be used with Arn "
                f"'{group}'"
            )


def _only_if_it_may_log(emit: Callable[..., None]) -> Callable[..., None]:
    """Write the log of a function only if its role may.

    https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html
    """

    @wraps(emit)
    def checked(func: dict[str, Any], *arguments: Any, **more: Any) -> None:  # noqa: ANN401
        config = func.get("config") or func
        default = f"/aws/lambda/{config['FunctionName']}"
        name = (config.get("LoggingConfig") or {}).get("LogGroup") or default
        region, account = seams.get_region(), seams.get_account_id()
        arn = f"arn:aws:logs:{region}:{account}:log-group:{name}:log-stream:stream"
        role = config["Role"].rpartition("/")[2]
        if all(role_may(role, f"logs:{act}", arn) for act in ("CreateLogStream", "PutLogEvents")):
            emit(func, *arguments, **more)

    return checked


def _as_the_machine(execute: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(execute)
    def as_the_machine(state: Any, raw: Any, execution: dict[str, Any], ctx: Any) -> Any:  # noqa: ANN401
        machines = seams.STATE_MACHINES
        _MACHINE.set(machines.get(execution["stateMachineArn"]))
        return execute(state, raw, execution, ctx)

    return as_the_machine


def _only_if_it_may_call(call: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function only if the role of the state machine may.

    https://docs.aws.amazon.com/step-functions/latest/dg/procedure-create-iam-role.html
    """

    @wraps(call)
    def checked(function: str, event: Any) -> Any:  # noqa: ANN401
        if machine := _MACHINE.get():
            refusal = _refusal(machine, function)
            if refusal:
                raise seams.ExecutionError("Lambda.AWSLambdaException", refusal)
        return call(function, event)

    return checked


def _only_with_the_key(
    world: World, operation: str, actions: tuple[str, ...], act: Callable[..., Any]
) -> Callable[..., Any]:
    """Use an encrypted state machine only if the caller may use its key, and if the key is enabled.

    https://docs.aws.amazon.com/step-functions/latest/dg/encryption-at-rest.html
    """

    @wraps(act)
    def checked(request: dict[str, Any]) -> Any:  # noqa: ANN401
        machine = _machine(request)
        key = _key_of(machine)
        # https://docs.aws.amazon.com/step-functions/latest/apireference/API_DescribeExecution.html
        if key is None or request.get("includedData") == "METADATA_ONLY":
            return act(request)
        if operation != "_start_execution" or world.knobs.state_machine_key_checks_caller:
            context = _context(machine)
            for action in actions:
                if reason := Check(action, key["Arn"], context).refusal:
                    return seams.error_response_json("KmsAccessDeniedException", reason, 400)
        if state := _INVALID_STATES.get(key["KeyState"]):
            reason = f"The key {key['Arn']} is {state}"
            if "kms:DescribeKey" in actions:
                # https://docs.aws.amazon.com/step-functions/latest/apireference/API_CreateStateMachine.html
                return seams.error_response_json("InvalidEncryptionConfiguration", reason, 400)
            return seams.error_response_json(
                "KmsInvalidStateException", reason, 400, {"kmsKeyState": state}
            )
        return act(request)

    return checked


def _machine(request: dict[str, Any]) -> dict[str, Any]:
    """Return the state machine, or the execution, that a request creates, updates or uses."""
    execution = seams.EXECUTIONS.get(request.get("executionArn")) or {}
    region, account = seams.get_region(), seams.get_account_id()
    arn = f"arn:aws:states:{region}:{account}:stateMachine:{request.get('name')}"
    arn = request.get("stateMachineArn") or execution.get("stateMachineArn") or arn
    known = seams.STATE_MACHINES.get(arn) or {}
    encrypted = (request, execution, known)
    found = [
        each["encryptionConfiguration"] for each in encrypted if "encryptionConfiguration" in each
    ]
    return {"stateMachineArn": arn, "encryptionConfiguration": found[0] if found else {}}


def _key_of(machine: dict[str, Any]) -> dict[str, Any] | None:
    key_id = machine.get("encryptionConfiguration", {}).get("kmsKeyId")
    return (seams.find_key(key_id) or {"Arn": key_id, "KeyState": ""}) if key_id else None


def _context(machine: dict[str, Any]) -> dict[str, str]:
    return {"kms:EncryptionContext:aws:states:stateMachineArn": machine["stateMachineArn"]}


def _uses_of_key(machine: dict[str, Any]) -> list[tuple[str, str, dict[str, str]]]:
    """Return the permissions that an encrypted state machine needs.

    https://docs.aws.amazon.com/step-functions/latest/dg/encryption-at-rest.html
    """
    if (key := _key_of(machine)) is None:
        return []
    return [(f"kms:{act}", key["Arn"], _context(machine)) for act in ("Decrypt", "GenerateDataKey")]


def _refusal(machine: dict[str, Any], function: str) -> str | None:
    role = _role(machine["roleArn"])
    arn = machine["stateMachineArn"]
    trusting = {"aws:SourceArn": arn, "aws:SourceAccount": seams.get_account_id()}
    if not service_may_assume("states.amazonaws.com", role["RoleName"], trusting):
        return f"states.amazonaws.com is not authorized to assume {role['Arn']}"
    needed: list[tuple[str, str, dict[str, str]]] = [("lambda:InvokeFunction", function, {})]
    if (key := _key_of(machine)) and key["KeyState"] in _INVALID_STATES:
        return f"The key {key['Arn']} is {_INVALID_STATES[key['KeyState']]}"
    for action, resource, keys in needed + _uses_of_key(machine):
        if not role_may(role["RoleName"], action, resource, keys):
            return f"User: {role['Arn']} is not authorized to perform: {action} on {resource}"
    return None


def _role(arn: str) -> dict[str, Any]:
    role: dict[str, Any] | None = seams.ROLES.get(arn.rpartition("/")[2])
    if role is None:
        raise RoleError(f"The role {arn} does not exist")
    return role
