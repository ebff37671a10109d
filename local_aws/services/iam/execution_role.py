"""Let CloudFormation use the execution role of a stack, or its caller, if IAM is enforced.

MiniStack does not check permissions of resources. Here, each resource checks the permissions that
its type's handler needs by the schema ("handlers" and their "permissions") and by the services
that it calls. Only writes are checked, and the read of a function's code.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-iam-servicerole.html
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/resource-type-schemas.html

The types of Image Builder are not in the table, because our service checks their permissions.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final

from local_aws import seams
from local_aws.server.world import CALLER
from local_aws.services.iam.authorization import Check, service_may_assume

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    Action = Callable[[dict[str, Any]], Any]
    Properties = Mapping[str, Any]
    Rule = Callable[[Properties, Collection[str]], Iterator[Check]]

_SERVICE: Final = "cloudformation.amazonaws.com"
# The key of the role in MiniStack's record of a stack or a change set.
_ROLE: Final = "_execution_role"
_WITHOUT_CHECKS: Final = {
    "AWS::CDK::Metadata",
    "AWS::CloudFormation::CustomResource",  # checked when it is invoked, like Custom::*
}


class AccessDeniedError(Exception):
    """The role or the caller lacks a permission that a resource needs."""


@dataclass(frozen=True)
class _Type:
    """The permissions that the handlers of a type need, as actions of one service.

    `create`, `update` and `delete` map a property to actions. The actions are checked for a
    resource that has the property, or whose property changes. After a `-`, they are checked if the
    property is removed. Those of "" are always checked.

    Attributes:
        service: The prefix of the actions.
        resource: The part of the ARN after account and Region.
        name: The property with the name. Without it, CloudFormation chooses a name that begins with
            those of stack and resource. None if the service chooses the name.
        rule: Yields checks on other resources, for properties and the names of those that are new.
    """

    service: str
    resource: str = "*"
    name: str | None = None
    create: Mapping[str, str] = field(default_factory=dict)
    update: Mapping[str, str] = field(default_factory=dict)
    delete: Mapping[str, str] = field(default_factory=dict)
    rule: Rule | None = None


def _function(properties: Properties, new: Collection[str]) -> Iterator[Check]:
    yield _pass_role(properties["Role"], "lambda.amazonaws.com")
    code = properties["Code"]
    if "Code" in new and "S3Bucket" in code:
        yield Check("s3:GetObject", f"arn:aws:s3:::{code['S3Bucket']}/{code['S3Key']}")
    # https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars-encryption.html
    if "KmsKeyArn" in new and (key := properties.get("KmsKeyArn")):
        yield from (Check(f"kms:{act}", key) for act in ("CreateGrant", "Encrypt"))


def _state_machine(properties: Properties, _new: Collection[str]) -> Iterator[Check]:
    yield _pass_role(properties["RoleArn"], "states.amazonaws.com")
    # https://docs.aws.amazon.com/step-functions/latest/dg/encryption-at-rest.html
    if key := properties.get("EncryptionConfiguration", {}).get("KmsKeyId"):
        yield from (Check(f"kms:{act}", key) for act in ("DescribeKey", "GenerateDataKey"))


def _instance_profile(properties: Properties, _new: Collection[str]) -> Iterator[Check]:
    for role in properties["Roles"]:
        yield _pass_role(_arn("iam", f"role/{role}"), "ec2.amazonaws.com")


def _event_rule(properties: Properties, new: Collection[str]) -> Iterator[Check]:
    for target in properties.get("Targets", []) if "Targets" in new else ():
        if "RoleArn" in target:
            yield _pass_role(target["RoleArn"], "events.amazonaws.com")


def _pass_role(arn: str, service: str) -> Check:
    return Check("iam:PassRole", arn, {"iam:PassedToService": service})


_TYPES: Final = {
    "AWS::CloudFormation::Stack": _Type(
        "cloudformation", "stack/{name}/*", "StackName",
        {"": "CreateStack"}, {"": "UpdateStack"}, {"": "DeleteStack"},
    ),
    "AWS::EC2::LaunchTemplate": _Type(
        "ec2",
        create={"": "CreateLaunchTemplate", "TagSpecifications": "CreateTags"},
        update={"": "CreateLaunchTemplateVersion"},
        delete={"": "DeleteLaunchTemplate"},
    ),
    "AWS::EC2::RouteTable": _Type(
        "ec2",
        create={"": "CreateRouteTable", "Tags": "CreateTags"},
        update={"Tags": "CreateTags DeleteTags"},
        delete={"": "DeleteRouteTable"},
    ),
    "AWS::EC2::SecurityGroup": _Type(
        "ec2",
        create={
            "": "CreateSecurityGroup",
            "SecurityGroupEgress": "AuthorizeSecurityGroupEgress RevokeSecurityGroupEgress",
            "SecurityGroupIngress": "AuthorizeSecurityGroupIngress",
            "Tags": "CreateTags",
        },
        update={
            "SecurityGroupEgress": "AuthorizeSecurityGroupEgress RevokeSecurityGroupEgress",
            "SecurityGroupIngress": "AuthorizeSecurityGroupIngress RevokeSecurityGroupIngress",
            "Tags": "CreateTags DeleteTags",
        },
        delete={"": "DeleteSecurityGroup"},
    ),
    "AWS::EC2::Subnet": _Type(
        "ec2",
        create={
            "": "CreateSubnet", "MapPublicIpOnLaunch": "ModifySubnetAttribute",
            "Tags": "CreateTags",
        },
        update={
            "MapPublicIpOnLaunch": "ModifySubnetAttribute", "Tags": "CreateTags DeleteTags",
        },
        delete={"": "DeleteSubnet"},
    ),
    "AWS::EC2::SubnetRouteTableAssociation": _Type(
        "ec2",
        create={"": "AssociateRouteTable"},
        update={"RouteTableId": "ReplaceRouteTableAssociation"},
        delete={"": "DisassociateRouteTable"},
    ),
    "AWS::EC2::VPC": _Type(
        "ec2",
        create={
            "": "CreateVpc", "EnableDnsHostnames": "ModifyVpcAttribute",
            "EnableDnsSupport": "ModifyVpcAttribute", "Tags": "CreateTags",
        },
        update={
            "EnableDnsHostnames": "ModifyVpcAttribute", "EnableDnsSupport": "ModifyVpcAttribute",
            "Tags": "CreateTags DeleteTags",
        },
        delete={"": "DeleteVpc"},
    ),
    "AWS::EC2::VPCEndpoint": _Type(
        "ec2",
        create={"": "CreateVpcEndpoint", "Tags": "CreateTags"},
        update={"": "ModifyVpcEndpoint", "Tags": "CreateTags DeleteTags"},
        delete={"": "DeleteVpcEndpoints"},
    ),
    "AWS::Events::Rule": _Type(
        "events", "rule/{name}", "Name",
        {"": "PutRule", "Targets": "PutTargets", "Tags": "TagResource"},
        {"": "PutRule", "Targets": "PutTargets RemoveTargets"},
        {"": "DeleteRule", "Targets": "RemoveTargets"},
        _event_rule,
    ),
    "AWS::IAM::InstanceProfile": _Type(
        "iam", "instance-profile{path}{name}", "InstanceProfileName",
        {"": "CreateInstanceProfile AddRoleToInstanceProfile"},
        {"Roles": "RemoveRoleFromInstanceProfile AddRoleToInstanceProfile"},
        {"": "RemoveRoleFromInstanceProfile DeleteInstanceProfile"},
        _instance_profile,
    ),
    "AWS::IAM::Policy": _Type(
        "iam", "role/{name}", "Roles",
        {"": "PutRolePolicy"}, {"": "PutRolePolicy"}, {"": "DeleteRolePolicy"},
    ),
    "AWS::IAM::Role": _Type(
        "iam", "role{path}{name}", "RoleName",
        {
            "": "CreateRole", "ManagedPolicyArns": "AttachRolePolicy", "Policies": "PutRolePolicy",
            "Tags": "TagRole",
        },
        {
            "AssumeRolePolicyDocument": "UpdateAssumeRolePolicy",
            "Description": "UpdateRoleDescription",
            "ManagedPolicyArns": "AttachRolePolicy DetachRolePolicy",
            "MaxSessionDuration": "UpdateRole",
            "PermissionsBoundary": "PutRolePermissionsBoundary",
            "-PermissionsBoundary": "DeleteRolePermissionsBoundary",
            "Policies": "PutRolePolicy DeleteRolePolicy",
            "Tags": "TagRole UntagRole",
        },
        {
            "": "DeleteRole", "ManagedPolicyArns": "DetachRolePolicy",
            "Policies": "DeleteRolePolicy",
        },
    ),
    "AWS::KMS::Key": _Type(
        "kms", "key/{name}", None,
        {"": "CreateKey", "EnableKeyRotation": "EnableKeyRotation", "Tags": "TagResource"},
        {
            "Description": "UpdateKeyDescription", "Enabled": "EnableKey DisableKey",
            "EnableKeyRotation": "EnableKeyRotation DisableKeyRotation",
            "KeyPolicy": "PutKeyPolicy", "Tags": "TagResource UntagResource",
        },
        {"": "ScheduleKeyDeletion"},
    ),
    "AWS::Lambda::EventInvokeConfig": _Type(
        "lambda", "function:{name}", "FunctionName",
        {"": "PutFunctionEventInvokeConfig"}, {"": "UpdateFunctionEventInvokeConfig"},
        {"": "DeleteFunctionEventInvokeConfig"},
    ),
    "AWS::Lambda::Function": _Type(
        "lambda", "function:{name}", "FunctionName",
        {
            "": "CreateFunction", "ReservedConcurrentExecutions": "PutFunctionConcurrency",
            "Tags": "TagResource",
        },
        {
            "": "UpdateFunctionConfiguration", "Code": "UpdateFunctionCode",
            "ReservedConcurrentExecutions": "PutFunctionConcurrency",
            "-ReservedConcurrentExecutions": "DeleteFunctionConcurrency",
            "Tags": "TagResource UntagResource",
        },
        {"": "DeleteFunction"},
        _function,
    ),
    "AWS::Lambda::Permission": _Type(
        "lambda", "function:{name}", "FunctionName",
        {"": "AddPermission"}, {"": "AddPermission RemovePermission"}, {"": "RemovePermission"},
    ),
    "AWS::Logs::LogGroup": _Type(
        "logs", "log-group:{name}", "LogGroupName",
        {"": "CreateLogGroup", "RetentionInDays": "PutRetentionPolicy", "Tags": "TagResource"},
        {
            "KmsKeyId": "AssociateKmsKey", "-KmsKeyId": "DisassociateKmsKey",
            "RetentionInDays": "PutRetentionPolicy", "-RetentionInDays": "DeleteRetentionPolicy",
            "Tags": "TagResource UntagResource",
        },
        {"": "DeleteLogGroup"},
    ),
    "AWS::S3::Bucket": _Type(
        "s3", "{name}", "BucketName",
        {
            "": "CreateBucket", "BucketEncryption": "PutEncryptionConfiguration",
            "LifecycleConfiguration": "PutLifecycleConfiguration",
            "PublicAccessBlockConfiguration": "PutBucketPublicAccessBlock",
            "Tags": "PutBucketTagging", "VersioningConfiguration": "PutBucketVersioning",
        },
        {
            "BucketEncryption": "PutEncryptionConfiguration",
            "LifecycleConfiguration": "PutLifecycleConfiguration",
            "PublicAccessBlockConfiguration": "PutBucketPublicAccessBlock",
            "Tags": "PutBucketTagging", "VersioningConfiguration": "PutBucketVersioning",
        },
        {"": "DeleteBucket"},
    ),
    "AWS::SNS::Topic": _Type(
        "sns", "{name}", "TopicName",
        {"": "CreateTopic", "Subscription": "Subscribe", "Tags": "TagResource"},
        {
            "": "SetTopicAttributes", "Subscription": "Subscribe Unsubscribe",
            "Tags": "TagResource UntagResource",
        },
        {"": "DeleteTopic"},
    ),
    "AWS::SSM::Parameter": _Type(
        "ssm", "parameter/{name}", "Name",
        {"": "PutParameter", "Tags": "AddTagsToResource"},
        {"": "PutParameter", "Tags": "AddTagsToResource RemoveTagsFromResource"},
        {"": "DeleteParameter"},
    ),
    "AWS::StepFunctions::StateMachine": _Type(
        "states", "stateMachine:{name}", "StateMachineName",
        {"": "CreateStateMachine", "Tags": "TagResource"},
        {"": "UpdateStateMachine", "Tags": "TagResource UntagResource"},
        {"": "DeleteStateMachine"},
        _state_machine,
    ),
}  # fmt: skip


def register() -> None:
    """Add the checks to MiniStack's CloudFormation and all its types if IAM is enforced."""
    if not seams.iam_is_enforced():
        return
    seams.CREATE_CHANGE_SET.replace(_with_role_recorded)
    seams.STACK_OPERATIONS.replace(_with_role)
    seams.INVOKE_CUSTOM_RESOURCE.replace(_invoking)
    for resource_type in seams.EACH_RESOURCE_TYPE.keys:
        if resource_type in _WITHOUT_CHECKS or resource_type.startswith("AWS::ImageBuilder::"):
            continue
        seams.EACH_RESOURCE_TYPE.replace(partial(_checked, resource_type), resource_type)


def _checked(
    resource_type: str, acts: dict[str, Callable[..., Any]]
) -> dict[str, Callable[..., Any]]:
    asking = {"create": _creating, "update": _updating, "delete": _deleting}
    return acts | {
        name: ask(resource_type, acts[name]) for name, ask in asking.items() if name in acts
    }


def _with_role_recorded(create_change_set: Action) -> Action:
    @wraps(create_change_set)
    def with_role_recorded(params: dict[str, Any]) -> Any:  # noqa: ANN401
        role = seams.query_parameter(params, "RoleARN")
        if refusal := role and _refusal(role):
            return refusal
        response = create_change_set(params)
        if change_set := role and _change_set(params):
            change_set[_ROLE] = role
        return response

    return with_role_recorded


def _with_role(operation: Action) -> Action:
    """Run an operation and the tasks that it starts with the role, which the stack keeps."""

    @wraps(operation)
    def with_role(params: dict[str, Any]) -> Any:  # noqa: ANN401
        given = seams.query_parameter(params, "RoleARN")
        if refusal := given and _refusal(given):
            return refusal
        change_set = _change_set(params)
        name = seams.query_parameter(params, "StackName") or change_set.get("StackName", "")
        kept = (seams.find_stack(name) or {}).get(_ROLE)
        role = given or change_set.get(_ROLE) or kept
        if not role:
            return operation(params)
        token = CALLER.set(_assume(role))
        try:
            response = operation(params)
        finally:
            CALLER.reset(token)
        if stack := seams.find_stack(name):
            stack[_ROLE] = role
        return response

    return with_role


def _change_set(params: dict[str, Any]) -> dict[str, Any]:
    name = seams.query_parameter(params, "ChangeSetName")
    stack_name = seams.query_parameter(params, "StackName")
    return (name and seams.find_change_set(name, stack_name)[1]) or {}


def _refusal(role_arn: str) -> Any:  # noqa: ANN401 - a response of MiniStack
    """Return the error response if CloudFormation may not use the role, or None if it may."""
    if reason := _pass_role(role_arn, _SERVICE).refusal:
        return seams.cloudformation_error("AccessDenied", reason, 403)
    if service_may_assume(_SERVICE, role_arn.rpartition("/")[2]):
        return None
    message = f"Role {role_arn} is invalid or cannot be assumed"
    return seams.cloudformation_error("ValidationError", message)


def _assume(role_arn: str) -> str:
    """Return the access key of CloudFormation's session with a role."""
    digest = hashlib.sha256(f"{_SERVICE}:{role_arn}".encode()).hexdigest().upper()
    access_key, name = f"ASIA{digest[:16]}", role_arn.rpartition("/")[2]
    session = {
        "Arn": f"arn:aws:sts::{seams.get_account_id()}:assumed-role/{name}/AWSCloudFormation",
        "UserId": f"{name}:AWSCloudFormation",
        "SecretAccessKey": digest[16:],
        "SessionToken": digest,
    }
    seams.register_session(access_key, session)
    return access_key


def _invoking(invoke: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(invoke)
    def invoking(
        act: str, logical_id: str, properties: Properties, *others: object, **more: object
    ) -> Any:  # noqa: ANN401
        check = Check("lambda:InvokeFunction", properties["ServiceToken"])
        if reason := check.refusal:
            code = "AccessDeniedException"
            raise AccessDeniedError(f"{reason} (Service: AWSLambda; Error Code: {code})")
        return invoke(act, logical_id, properties, *others, **more)

    return invoking


def _creating(resource_type: str, create: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(create)
    def creating(logical_id: str, properties: Properties, stack_name: str) -> Any:  # noqa: ANN401
        created_with = _set(properties)
        _check(resource_type, "create", f"{stack_name}-{logical_id}-*", properties, created_with)
        return create(logical_id, properties, stack_name)

    return creating


def _updating(resource_type: str, update: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(update)
    def updating(physical_id: str, old: Properties, new: Properties, *others: object) -> Any:  # noqa: ANN401
        changed = {name for name in new if old.get(name) != new[name]}
        changed |= {f"-{name}" for name in old if name not in new}
        _check(resource_type, "update", physical_id, new, changed)
        return update(physical_id, old, new, *others)

    return updating


def _deleting(resource_type: str, delete: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(delete)
    def deleting(physical_id: str, properties: Properties, *others: object) -> Any:  # noqa: ANN401
        _check(resource_type, "delete", physical_id, properties, _set(properties))
        return delete(physical_id, properties, *others)

    return deleting


def _check(
    resource_type: str, act: str, name: str, properties: Properties, affected: Collection[str]
) -> None:
    type_ = _TYPES.get(resource_type)
    if type_ is None:
        if _is_root():
            return
        raise AccessDeniedError(
            f"local_aws does not know the permissions that {resource_type} needs: "
            "add the type to local_aws/services/iam/execution_role.py"
        )
    actions: dict[str, str] = getattr(type_, act)
    checks = [
        Check(f"{type_.service}:{action}", arn)
        for changed in ("", *sorted(affected))
        for action in actions.get(changed, "").split()
        for arn in _arns(type_, act, name, properties)
    ]
    if type_.rule and act != "delete":
        checks += type_.rule(properties, affected)
    for check in checks:
        if reason := check.refusal:
            raise AccessDeniedError(
                f'Resource handler returned message: "{reason}" (HandlerErrorCode: AccessDenied)'
            )


def _is_root() -> bool:
    """Return whether the caller is the account's root, whose permissions no policy limits."""
    principal = seams.resolve_principal(CALLER.get() or "", seams.get_account_id())
    return getattr(principal, "policies", ...) is None


def _arns(type_: _Type, act: str, name: str, properties: Properties) -> list[str]:
    if type_.resource == "*" or (act == "create" and type_.name is None):
        return ["*"]
    names = properties.get(type_.name or "", name)
    return [
        known
        if known.startswith("arn:")
        else _arn(
            type_.service,
            type_.resource.format(name=known.lstrip("/"), path=properties.get("Path", "/")),
        )
        for known in ([names] if isinstance(names, str) else names)
    ]


def _arn(service: str, resource: str) -> str:
    account, region = seams.get_account_id(), seams.get_region()
    where = {"iam": f":{account}", "s3": ":"}.get(service, f"{region}:{account}")
    return f"arn:aws:{service}:{where}:{resource}"


def _set(properties: Properties) -> set[str]:
    """Return the names of properties with a value; Tags only if some are not CloudFormation's."""
    tags = properties.get("Tags") or []
    keys = tags if isinstance(tags, dict) else [tag["Key"] for tag in tags]
    own = any(not str(key).startswith("aws:") for key in keys)
    return {name for name, value in properties.items() if value and (name != "Tags" or own)}
