"""Checks of arguments. Each yields a sentence per problem; unresolved tokens pass.

The limits are those of the ImportVmImage model, and stricter where Image Builder's documentation
is: https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_ImportVmImage.html
"""

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping

import jsii
from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack, TagManager, Token
from constructs import Construct, IValidation

from cdk_vm_import import _tagging
from cdk_vm_import._handler import contract
from cdk_vm_import.platform import Platform

MAX_VERSION_NODE = 2**30 - 1
LOG_GROUP_PREFIX = "/aws/imagebuilder/"

_LOG_GROUP = re.compile(rf"{LOG_GROUP_PREFIX}[-_/.a-zA-Z0-9]+")
_MAX_LOG_GROUP = 512
_SNAPSHOT = re.compile(r"snap-[0-9a-f]{8,17}")
_AMI = re.compile(r"ami-[0-9a-f]{8,17}")
_TAG_KEY = re.compile(r"[a-zA-Z0-9\s_.:/=+\-@]*", re.ASCII)
_MAX_TAG_KEY = 128
_MAX_TAG_VALUE = 256
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/outputs-section-structure.html
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
_MAX_EXPORT_NAME = 255
_MAX_OUTPUTS = 200
_EXPORT_NAME = re.compile(rf"[a-zA-Z0-9:-]{{1,{_MAX_EXPORT_NAME}}}")
# How an error shows a value: long ones without their middle.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


def shown(value: object) -> str:
    """Return how an error shows a value."""
    return _SHORT.repr(value)


def place(scope: object, construct_id: object) -> None:
    """Check that a construct can be created there.

    Raises:
        ValueError: The scope is not a construct, or the id is not a string.
    """
    if not isinstance(scope, Construct):
        raise ValueError(  # noqa: TRY004 - all problems of arguments are ValueErrors
            f"{construct_id}: scope {shown(scope)} is not a construct: use the stack, or another "
            "construct in it."
        )
    if not (isinstance(construct_id, str) and construct_id):
        raise ValueError(
            f"{scope.node.path}: construct_id {shown(construct_id)} is not valid: use a str that "
            "is not empty."
        )


def check(scope: Construct, construct_id: str, problems: Iterable[str]) -> None:
    """Raise an error that lists the problems of a construct, each with the construct's path.

    Args:
        scope: The scope of the construct, which does not exist yet.
        construct_id: The id of the construct in the scope.
        problems: One sentence per problem.

    Raises:
        ValueError: There are problems.
    """
    path = f"{scope.node.path}/{construct_id}".removeprefix("/")
    if lines := [f"{path}: {problem}" for problem in problems]:
        raise ValueError("\n".join(lines))


def image_name(value: object) -> Iterator[str]:
    """Check that Image Builder accepts the name."""
    if not isinstance(value, str):
        yield _not_a_string("image_name", value)
    elif not (Token.is_unresolved(value) or contract.IMAGE_NAME.fullmatch(value)):
        yield (
            f"image_name {shown(value)} is not valid: use 3 to 128 letters, digits, hyphens, "
            "underscores or inner spaces."
        )


def semantic_version(value: object) -> Iterator[str]:
    """Check for three numbers without leading zeros.

    AWS accepts 01.0.0, but does not document whether it is the same version as 1.0.0.
    """
    if not isinstance(value, str):
        yield _not_a_string("semantic_version", value)
    elif not Token.is_unresolved(value) and not (
        contract.SEMANTIC_VERSION.fullmatch(value)
        and all(
            node == str(int(node)) and int(node) <= MAX_VERSION_NODE for node in value.split(".")
        )
    ):
        yield (
            f"semantic_version {shown(value)} is not valid: use X.Y.Z, three whole numbers from 0 "
            f"to {MAX_VERSION_NODE} without leading zeros, such as '1.0.0'."
        )


def platform(value: object) -> Iterator[str]:
    """Check for a member of Platform, because a wrong string would only fail in AWS."""
    if not isinstance(value, Platform):
        yield f"platform {shown(value)} is not a Platform: use {', '.join(map(str, Platform))}."


def vm_import_task_id(value: object) -> Iterator[str]:
    """Check for the id of an ImportImage task."""
    if not isinstance(value, str):
        yield _not_a_string("vm_import_task_id", value)
    elif Token.is_unresolved(value) or contract.IMPORT_TASK_ID.fullmatch(value):
        return
    elif value.startswith("import-snap-"):
        yield (
            f"vm_import_task_id {shown(value)} is the id of an ImportSnapshot task, but "
            "ImportVmImage accepts only ImportImage tasks: import the disk, or the snapshot that "
            "the task created, with 'aws ec2 import-image' and use the id import-ami-... of that "
            "task."
        )
    else:
        yield (
            f"vm_import_task_id {shown(value)} is not the id of an ImportImage task: use "
            "import-ami- and 8 to 17 hexadecimal digits, as 'aws ec2 import-image' and "
            "'aws ec2 describe-import-image-tasks' print it."
        )


def snapshot_id(value: object) -> Iterator[str]:
    """Check for the id of a snapshot."""
    if not isinstance(value, str):
        yield "is not a string: use the id of a snapshot, snap-..."
    elif not (Token.is_unresolved(value) or _SNAPSHOT.fullmatch(value)):
        yield "is not the id of a snapshot: use snap- and 8 to 17 hexadecimal digits."


def text(argument: str, value: object, max_length: int) -> Iterator[str]:
    """Check for a text of 1 to max_length characters, or None."""
    if value is None:
        return
    if not isinstance(value, str):
        yield _not_a_string(argument, value)
    elif not Token.is_unresolved(value) and not 1 <= len(value) <= max_length:
        yield (f"{argument} has {len(value)} characters: use 1 to {max_length}, or leave it out.")


def log_group_name(value: object) -> Iterator[str]:
    """Check that Image Builder may write to the log group.

    Args:
        value: Name of the log group; None if CloudFormation generates the name.
    """
    if value is None:
        yield (
            "log_group has no log_group_name, so CloudFormation would generate a name that Image "
            f"Builder may not write to: set a log_group_name that starts with {LOG_GROUP_PREFIX}."
        )
    elif isinstance(value, str) and not (
        Token.is_unresolved(value) or (_LOG_GROUP.fullmatch(value) and len(value) <= _MAX_LOG_GROUP)
    ):
        yield (
            f"log_group {shown(value)} is not valid, because Image Builder may not write to it: "
            f"use a name that starts with {LOG_GROUP_PREFIX} and has at most {_MAX_LOG_GROUP} "
            "letters, digits, hyphens, underscores, slashes or full stops."
        )


def timeout(value: object) -> Iterator[str]:
    """Check for a duration that the deployment can wait."""
    if not isinstance(value, Duration):
        yield f"timeout {shown(value)} is not a Duration: use one, such as Duration.hours(4)."
    elif value.is_unresolved():
        yield (
            "timeout is a token, but the number of resources that wait depends on it: use a "
            "Duration of a plain number, such as Duration.hours(4)."
        )
    elif not (contract.MIN_TIMEOUT <= value.to_seconds(integral=False) <= contract.MAX_TIMEOUT):
        yield (
            f"timeout {value.to_human_string()} is not valid: use 1 minute to 12 hours. For "
            "longer imports use wait_for_available=False, and the deployment does not wait."
        )


def tags(value: object) -> Iterator[str]:
    """Check the keys, the values and the number of tags."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        yield f"tags {shown(value)} is not a mapping: use a dict of keys and values."
        return
    if len(value) > contract.MAX_TAGS:
        yield (
            f"tags has {len(value)} entries: use at most {contract.MAX_TAGS}. AWS allows 50, "
            f"the library adds {len(contract.OwnTag)}, and Image Builder may add one."
        )
    for key, tag in value.items():
        yield from _tag_key(key)
        yield from _tag_value(key, tag)


@jsii.implements(IValidation)
class TagValidation:
    """Checks the tags at synthesis, when `Tags.of()` has added its own."""

    def __init__(self, scope: Construct, tag_manager: TagManager) -> None:
        """Take the construct of a resource, and the tag manager of the resource."""
        self._scope, self._tags = scope, tag_manager

    def validate(self) -> list[str]:
        """List the problems."""
        return [*tags(_tagging.values(self._scope, self._tags))]


@jsii.implements(IValidation)
class SettingsTagValidation:
    """Checks at synthesis that the AMI of an image has room for the tag of its settings."""

    def __init__(self, image: Construct, tag_manager: TagManager) -> None:
        """Take the image, and its tag manager."""
        self._image, self._tags = image, tag_manager

    def validate(self) -> list[str]:
        """List the problems."""
        # With another construct id, new settings tag the AMI before the old ones are removed.
        most = contract.MAX_TAGS - 2
        if len(_tagging.values(self._image, self._tags)) <= most:
            return []
        problem = f"tags has over {most} entries: use at most {most} with AmiSettings, which add "
        return [problem + "one, and another one when their construct id changes."]


@jsii.implements(IValidation)
class OutputValidation:
    """Counts the outputs of a stack at synthesis, when CDK has added those of its references."""

    def __init__(self, stack: Stack) -> None:
        """Take the stack."""
        self._stack = stack

    def validate(self) -> list[str]:
        """List the problem."""
        outputs = [node for node in self._stack.node.find_all() if isinstance(node, CfnOutput)]
        count = sum(output.stack is self._stack for output in outputs)
        if count <= _MAX_OUTPUTS:
            return []
        problem = f"the stack has {count} outputs, but CloudFormation allows {_MAX_OUTPUTS}: use "
        advice = "stack_output=False for images whose ARN nobody reads there, or several stacks."
        return [problem + advice]


def flag(argument: str, value: object) -> Iterator[str]:
    """Check for a bool: a string such as 'false' would be true."""
    if not isinstance(value, bool):
        yield f"{argument} {shown(value)} is not a bool: use True or False."


def optional(argument: str, value: object, attribute: str, use: str) -> Iterator[str]:
    """Check for an object with an attribute, or None: the interfaces of the CDK have no type.

    Args:
        argument: Name of the argument.
        value: Its value.
        attribute: What each implementation of the interface has.
        use: What to use instead.
    """
    if value is not None and not hasattr(value, attribute):
        yield f"{argument} {shown(value)} is not valid: use {use}, or leave it out."


def listed(argument: str, value: object, kind: type, use: str) -> Iterator[str]:
    """Check for a list or another sequence, but not a string.

    Args:
        argument: Name of the argument.
        value: Its value.
        kind: The type of each item.
        use: What a list contains.
    """
    if not isinstance(value, (list, tuple)):
        yield f"{argument} {shown(value)} is not a list: use a list of {use}."
        return
    for item in value:
        if not isinstance(item, kind):
            yield f"{argument} has {shown(item)}: use a list of {use}."


def removal_policy(value: object) -> Iterator[str]:
    """Check for a policy that an image can have."""
    if not isinstance(value, RemovalPolicy):
        yield (
            f"removal_policy {shown(value)} is not a RemovalPolicy: use one, such as "
            "RemovalPolicy.DESTROY."
        )
    elif value is RemovalPolicy.SNAPSHOT:
        yield (
            "removal_policy SNAPSHOT is not possible for an image: use DESTROY, RETAIN or "
            "RETAIN_ON_UPDATE_OR_DELETE."
        )


def export_name(value: object) -> Iterator[str]:
    """Check for a name that CloudFormation accepts, or None."""
    if value is None:
        return
    if not isinstance(value, str):
        yield _not_a_string("export_name", value)
    elif not (Token.is_unresolved(value) or _EXPORT_NAME.fullmatch(value)):
        yield (
            f"export_name {shown(value)} is not valid: use 1 to {_MAX_EXPORT_NAME} letters, "
            "digits, colons or hyphens."
        )


def provider(value: object, kind: type[Construct], stack: Stack) -> Iterator[str]:
    """Check for a provider of the stack: it may change only resources with that stack's tag.

    Args:
        value: The provider, or None.
        kind: The type of a provider.
        stack: The stack.
    """
    if value is None:
        return
    if not isinstance(value, kind):
        yield f"provider {shown(value)} is not a {kind.__name__}: use one, or leave it out."
    elif Stack.of(value) is not stack:
        yield (
            f"provider {value.node.path} belongs to another stack: use a provider of the stack "
            f"{stack.node.path or stack.stack_name}, or leave it out."
        )


def image_arn(value: object) -> Iterator[str]:
    """Check for the ARN of an image build."""
    if not isinstance(value, str):
        yield _not_a_string("image_arn", value)
    elif not (Token.is_unresolved(value) or contract.IMAGE_BUILD_ARN.fullmatch(value)):
        yield (
            f"image_arn {shown(value)} is not the ARN of an image build: use "
            "arn:<partition>:imagebuilder:<region>:<account>:image/<name>/<x.y.z>/<build>."
        )


def image_id(value: object) -> Iterator[str]:
    """Check for the id of an AMI, or None."""
    if value is None:
        return
    if not isinstance(value, str):
        yield _not_a_string("image_id", value)
    elif not (Token.is_unresolved(value) or _AMI.fullmatch(value)):
        yield f"image_id {shown(value)} is not the id of an AMI: use ami-..."


def _tag_key(key: object) -> Iterator[str]:
    if not isinstance(key, str):
        yield _not_a_string("tag key", key)
    elif Token.is_unresolved(key):
        return
    elif key.lower().startswith(("aws:", contract.TAG_PREFIX)):
        yield (
            f"tag key {shown(key)} has a reserved prefix: use a key that does not start with aws: "
            f"or {contract.TAG_PREFIX}"
        )
    elif not (1 <= len(key) <= _MAX_TAG_KEY and _TAG_KEY.fullmatch(key)):
        yield (
            f"tag key {shown(key)} is not valid: use 1 to {_MAX_TAG_KEY} letters, digits, spaces "
            "or any of _.:/=+-@"
        )


def _tag_value(key: object, value: object) -> Iterator[str]:
    if not isinstance(value, str):
        yield _not_a_string(f"value of tag {shown(key)}:", value)
    elif not Token.is_unresolved(value) and len(value) > _MAX_TAG_VALUE:
        yield (
            f"tag {shown(key)} has a value of {len(value)} characters: use at most "
            f"{_MAX_TAG_VALUE}."
        )


def _not_a_string(argument: str, value: object) -> str:
    return f"{argument} {shown(value)} is not a string: use a str."
