"""Checks of what the user gave. Each yields its problems; unresolved tokens pass.

The limits are those of the ImportVmImage model, tightened where Image Builder's own pages say so:
https://docs.aws.amazon.com/imagebuilder/latest/APIReference/API_ImportVmImage.html
"""

import re
from collections.abc import Iterator, Mapping

import jsii
from aws_cdk import Duration, Stack, TagManager, Token
from constructs import Construct, IValidation

from cdk_vm_import._contract import RESERVED_TAG_PREFIX, OwnTag
from cdk_vm_import.platform import Platform

LONGEST_TIMEOUT = Duration.hours(12)
SHORTEST_TIMEOUT = Duration.minutes(1)
MAX_VERSION_NODE = 2**30 - 1
MAX_TAGS = 50 - len(OwnTag)
LOG_GROUP_PREFIX = "/aws/imagebuilder/"

_IMAGE_NAME = re.compile(r"[-_A-Za-z0-9][-_A-Za-z0-9 ]{1,126}[-_A-Za-z0-9]")
# A leading zero is refused: AWS takes 01.0.0, but does not say whether that is 1.0.0.
_SEMANTIC_VERSION = re.compile(r"(?:(?:0|[1-9][0-9]*)\.){2}(?:0|[1-9][0-9]*)")
_IMPORT_IMAGE_TASK = re.compile(r"import-ami-[0-9a-f]{8,17}")
_LOG_GROUP = re.compile(rf"{LOG_GROUP_PREFIX}[-_/.a-zA-Z0-9]+")
_MAX_LOG_GROUP = 512
_TAG_KEY = re.compile(r"[a-zA-Z0-9\s_.:/=+\-@]*", re.ASCII)
_BUILD_ARN = re.compile(
    r"arn:aws[^:]*:imagebuilder:[^:]+:[0-9]{12}:image/[-_a-z0-9]+/[0-9]+\.[0-9]+\.[0-9]+/[0-9]+"
)


def image_name(value: object) -> Iterator[str]:
    """Check against Image Builder's ResourceName."""
    if not isinstance(value, str):
        yield _no_string("image_name", value)
    elif not (Token.is_unresolved(value) or _IMAGE_NAME.fullmatch(value)):
        yield (
            f"image_name {value!r} is not a name that Image Builder takes: give 3 to 128 letters, "
            "digits, '-', '_' or inner spaces"
        )


def semantic_version(value: object) -> Iterator[str]:
    """Check for X.Y.Z with nodes that Image Builder can count."""
    if not isinstance(value, str):
        yield _no_string("semantic_version", value)
    elif not Token.is_unresolved(value) and not (
        _SEMANTIC_VERSION.fullmatch(value)
        and all(int(node) <= MAX_VERSION_NODE for node in value.split("."))
    ):
        yield (
            f"semantic_version {value!r} is not X.Y.Z: give three whole numbers from 0 to "
            f"{MAX_VERSION_NODE} without leading zeros, such as '1.0.0'"
        )


def platform(value: object) -> Iterator[str]:
    """Check for a member of Platform: a bare string would hide a wrong spelling."""
    if not isinstance(value, Platform):
        yield f"platform {value!r} is no Platform: give {', '.join(map(str, Platform))}"


def vm_import_task_id(value: object) -> Iterator[str]:
    """Check for the id of an ImportImage task."""
    if not isinstance(value, str):
        yield _no_string("vm_import_task_id", value)
    elif Token.is_unresolved(value) or _IMPORT_IMAGE_TASK.fullmatch(value):
        return
    elif value.startswith("import-snap-"):
        yield (
            f"vm_import_task_id {value!r} is an ImportSnapshot task, and ImportVmImage takes only "
            "ImportImage tasks: give the disk, or the snapshot that the task made, to "
            "'aws ec2 import-image' and use its import-ami-... id"
        )
    else:
        yield (
            f"vm_import_task_id {value!r} is not the id of an ImportImage task: give "
            "import-ami- and 8 to 17 hex digits, as 'aws ec2 import-image' or "
            "'aws ec2 describe-import-image-tasks' prints it"
        )


def text(argument: str, value: object, longest: int) -> Iterator[str]:
    """Check for 1 to longest characters, or nothing at all."""
    if value is None:
        return
    if not isinstance(value, str):
        yield _no_string(argument, value)
    elif not Token.is_unresolved(value) and not 1 <= len(value) <= longest:
        yield f"{argument} has {len(value)} characters: give 1 to {longest}, or leave it out"


def log_group_name(value: object) -> Iterator[str]:
    """Check that Image Builder may write to the log group; None if CloudFormation names it."""
    if value is None:
        yield (
            "log_group has no name of its own, and CloudFormation would give it one that Image "
            f"Builder may not write to: give it a log_group_name under {LOG_GROUP_PREFIX}"
        )
    elif isinstance(value, str) and not (
        Token.is_unresolved(value) or (_LOG_GROUP.fullmatch(value) and len(value) <= _MAX_LOG_GROUP)
    ):
        yield (
            f"log_group {value!r} is not one that Image Builder may write to: give one whose name "
            f"starts with {LOG_GROUP_PREFIX} and has at most {_MAX_LOG_GROUP} letters, digits, "
            "'-', '_', '/' or '.'"
        )


def timeout(value: object) -> Iterator[str]:
    """Check against the longest that CloudFormation waits for a signal."""
    if not isinstance(value, Duration):
        yield f"timeout {value!r} is no Duration: give one, such as Duration.hours(4)"
    elif value.is_unresolved():
        yield (
            "timeout is a token, but it decides at synth how the stack waits: give a Duration of a "
            "plain number"
        )
    elif not (
        SHORTEST_TIMEOUT.to_milliseconds() <= value.to_milliseconds()
        and value.to_milliseconds() <= LONGEST_TIMEOUT.to_milliseconds()
    ):
        yield (
            f"timeout {value.to_human_string()} is not possible: give 1 minute to 12 hours, the "
            "longest that CloudFormation waits for a resource; or wait_for_available=False, and "
            "the deployment does not wait at all"
        )


def tags(value: object) -> Iterator[str]:
    """Check keys, values and number of tags against the model and against the reserved names."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        yield f"tags {value!r} is no mapping: give a dict of keys to values"
        return
    if len(value) > MAX_TAGS:
        yield (
            f"tags has {len(value)} entries: give at most {MAX_TAGS}, AWS's 50 less the "
            f"{len(OwnTag)} that identify the image"
        )
    for key, tag in value.items():
        yield from _tag_key(key)
        yield from _tag_value(key, tag)


@jsii.implements(IValidation)
class TagValidation:
    """Checks the tags once `Tags.of()` has brought them all."""

    def __init__(self, tags_of: TagManager) -> None:
        """Take the manager of a resource's tags."""
        self._tags = tags_of

    def validate(self) -> list[str]:
        """List the problems."""
        return [*tags(self._tags.tag_values())]


def provider(value: Construct | None, stack: Stack) -> Iterator[str]:
    """Check that it is of the stack: its permissions end at what carries the stack's id."""
    if value is not None and Stack.of(value) is not stack:
        yield (
            f"provider {value.node.path} belongs to another stack: give one of "
            f"{stack.node.path or stack.stack_name}, or leave it out"
        )


def _tag_key(key: object) -> Iterator[str]:
    if not isinstance(key, str):
        yield _no_string("tag key", key)
    elif Token.is_unresolved(key):
        return
    elif key.lower().startswith(("aws:", RESERVED_TAG_PREFIX)):
        yield (
            f"tag key {key!r} has a reserved prefix: give one without aws: or {RESERVED_TAG_PREFIX}"
        )
    elif not (1 <= len(key) <= 128 and _TAG_KEY.fullmatch(key)):  # noqa: PLR2004 - the model's
        yield (
            f"tag key {key!r} is not one that Image Builder takes: give 1 to 128 letters, digits, "
            "spaces or any of _.:/=+-@"
        )


def _tag_value(key: object, value: object) -> Iterator[str]:
    if not isinstance(value, str):
        yield _no_string(f"tag {key!r}", value)
    elif not Token.is_unresolved(value) and len(value) > 256:  # noqa: PLR2004 - the model's
        yield f"tag {key!r} has a value of {len(value)} characters: give at most 256"


def image_arn(value: str) -> Iterator[str]:
    """Check for the ARN of one build of an image in an account."""
    if not (Token.is_unresolved(value) or _BUILD_ARN.fullmatch(value)):
        yield (
            f"image_arn {value!r} is not the ARN of an image build: give "
            "arn:<partition>:imagebuilder:<region>:<account>:image/<name>/<x.y.z>/<build>"
        )


def _no_string(argument: str, value: object) -> str:
    return f"{argument} {value!r} is no string: give a str"
