"""Faults of the simulated AWS: each makes it kinder than AWS, or drops or doubles an event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.mutations.changes import (
    always,
    argument,
    assign,
    call,
    drop_entry,
    drop_operand,
    drop_statement,
    iterate,
    never,
    returns,
)
from tests.mutations.mutation import Mutation

if TYPE_CHECKING:
    from tests.mutations.changes import Change

_IMAGE_BUILDER: Final = "imagebuilder.image_builder"
_IMAGES: Final = "ImageBuilder"
_VM_IMPORT: Final = "ec2.vm_import"


def _fault(name: str, module: str, function: str, change: Change, *tests: str) -> Mutation:
    """Return a fault of a service, which the tests of these files must notice."""
    files = tuple(f"tests/local_aws/test_{test}.py" for test in tests)
    return Mutation(name, f"local_aws.services.{module}", function, change, files)


MUTATIONS: Final = (
    # requests
    _fault(
        "a request without a required member is accepted",
        "service_model",
        "_member_problems",
        never("name", "value"),
        "requests",
    ),
    _fault(
        "a member may have any type", "service_model", "problems", never("isinstance"), "requests"
    ),
    _fault(
        "a value may be longer by one",
        "service_model",
        "_constraint_problems",
        call("len", "len(value) - 1"),
        "requests",
        "image_builder",
    ),
    # images
    _fault(
        "an image may have any name",
        _IMAGE_BUILDER,
        f"{_IMAGES}._check_import",
        never("_NAME"),
        "image_builder",
    ),
    _fault(
        "a version may be larger by one",
        "imagebuilder.pipelines",
        "",
        assign("_LARGEST_NODE", "2**30"),
        "image_builder",
    ),
    _fault(
        "a recipe may have any version",
        _IMAGE_BUILDER,
        f"{_IMAGES}.create_image_recipe",
        drop_statement("check_version"),
        "recipes",
    ),
    _fault(
        "the log group of an import may have any name",
        _IMAGE_BUILDER,
        f"{_IMAGES}._check_import",
        never("group"),
        "image_builder",
    ),
    _fault(
        "the task of an import need not exist",
        _IMAGE_BUILDER,
        f"{_IMAGES}.import_vm_image",
        never("unknown_task"),
        "image_builder",
    ),
    _fault(
        "a client token has no effect",
        _IMAGE_BUILDER,
        f"{_IMAGES}._once",
        never("expiry"),
        "image_builder",
    ),
    _fault(
        "a client token may be used with other parameters",
        _IMAGE_BUILDER,
        f"{_IMAGES}._once",
        never("idempotency_mismatch"),
        "image_builder",
    ),
    _fault(
        "a version finds builds that are not AVAILABLE",
        _IMAGE_BUILDER,
        f"{_IMAGES}.get_image",
        drop_operand("AVAILABLE"),
        "image_builder",
    ),
    _fault(
        "a running image can be deleted",
        _IMAGE_BUILDER,
        f"{_IMAGES}.delete_image",
        drop_operand("_TERMINAL"),
        "image_builder",
    ),
    _fault(
        "an image with a recipe can be deleted",
        _IMAGE_BUILDER,
        f"{_IMAGES}.delete_image",
        drop_operand("wanted", beside="_TERMINAL"),
        "image_builder",
        "recipes",
    ),
    _fault(
        "an image that has ended can be cancelled",
        _IMAGE_BUILDER,
        f"{_IMAGES}.cancel_image_creation",
        never("_TERMINAL"),
        "image_builder",
    ),
    _fault(
        "an image may have 51 tags", _IMAGE_BUILDER, "", assign("_MOST_TAGS", "51"), "image_builder"
    ),
    _fault(
        "lists lose the last item of each page",
        "paging",
        "page",
        assign("following", "max(left - size - 1, 0)"),
        "image_builder",
        "boto3",
    ),
    # EC2
    _fault("EC2 imports any architecture", _VM_IMPORT, "_check", never("allowed"), "vm_import"),
    _fault(
        "a task is remembered for 8 days",
        _VM_IMPORT,
        "",
        assign("_SECONDS_REMEMBERED", "8 * 86400"),
        "vm_import",
    ),
    _fault(
        "a ClientToken of EC2 has no effect",
        _VM_IMPORT,
        "VmImport._replayed",
        always("task", "expiry"),
        "vm_import",
    ),
    _fault(
        "a task that has ended can be cancelled",
        _VM_IMPORT,
        "VmImport.cancel_import_task",
        never("cancel_ended_task"),
        "vm_import",
    ),
    _fault(
        "a snapshot that an AMI uses can be deleted",
        "ec2.images",
        "delete_snapshot",
        never("_user"),
        "vm_import",
    ),
    _fault(
        "the tags of a snapshot remain",
        "ec2.images",
        "_delete",
        drop_statement("EC2_TAGS"),
        "vm_import",
    ),
    _fault(
        "DescribeImages ignores filters of disks",
        "ec2.descriptions",
        "_image_matches",
        call("any", "True"),
        "vm_import",
    ),
    _fault(
        "an import may have any tags",
        _VM_IMPORT,
        "_check",
        drop_statement("check_tags"),
        "vm_import",
    ),
    _fault(
        "a tag may have a reserved key",
        "ec2.tags",
        "check_tags",
        never("startswith"),
        "vm_import",
    ),
    _fault("an AMI may have 51 tags", "ec2.tags", "", assign("_MOST_TAGS", "51"), "vm_import"),
    _fault(
        "tags of what does not exist are accepted",
        "ec2.tags",
        "create_tags",
        drop_statement("_check_existence"),
        "vm_import",
    ),
    # permissions
    _fault(
        "only the first resource of CreateTags is checked",
        "ec2.permissions",
        "ec2_checks",
        iterate("resource_id", "request['Resources'][:1]"),
        "authorization",
    ),
    _fault(
        "the permission to tag an import is not checked",
        "imagebuilder.permissions",
        "ImageBuilderChecks.__call__",
        never("TagResource"),
        "authorization",
    ),
    _fault(
        "what an import does for its caller is not checked",
        "imagebuilder.permissions",
        "",
        drop_entry("ImportVmImage"),
        "authorization",
    ),
    _fault(
        "the service-linked role needs no permission",
        "imagebuilder.permissions",
        "ImageBuilderChecks.__call__",
        never("SERVICE_LINKED_ROLE"),
        "authorization",
    ),
    _fault(
        "a role can be passed without permission",
        _VM_IMPORT,
        "VmImport.import_image",
        drop_operand("_pass_role"),
        "authorization",
    ),
    _fault(
        "only the first disk of an import is checked",
        _VM_IMPORT,
        "_caller_may_read",
        argument("map", 1, "request['DiskContainers'][:1]"),
        "authorization",
    ),
    _fault(
        "a state machine needs no permission to use its key",
        "iam.service_roles",
        "_uses_of_key",
        returns("[]"),
        "service_roles",
    ),
    _fault(
        "an encrypted execution can be read without its key",
        "iam.service_roles",
        "",
        drop_entry("_describe_execution"),
        "service_roles",
    ),
    _fault(
        "the key of a state machine may be disabled",
        "iam.service_roles",
        "_only_with_the_key.checked",
        never("state"),
        "service_roles",
    ),
    _fault(
        "the policy of a key does not limit the roles of services",
        "iam.authorization",
        "role_may",
        never("find_key"),
        "service_roles",
    ),
    # limits and lags
    _fault(
        "the policies of a role may be larger by one",
        "iam.role_policies",
        "",
        assign("_LARGEST_OF_ROLE", "10_241"),
        "quotas",
    ),
    _fault(
        "each policy of a role has the whole limit",
        "iam.role_policies",
        "_size",
        call("sum", "max([len(p) for p in policies.values()], default=0)"),
        "quotas",
    ),
    _fault(
        "the policy of a function has no limit",
        "iam.role_policies",
        "_limited",
        always("size", "_LARGEST_OF_FUNCTION"),
        "quotas",
    ),
    _fault(
        "IAM sees each change at once",
        "iam.role_policies",
        "_Changes.policies_of_role",
        always("past"),
        "eventual_consistency",
    ),
    _fault(
        "IAM sees a permissions boundary at once",
        "iam.role_policies",
        "_Changes.boundary",
        always("past"),
        "eventual_consistency",
    ),
    _fault(
        "IAM sees the policies of a user at once",
        "iam.role_policies",
        "_Changes.policies_of_user",
        always("past"),
        "eventual_consistency",
    ),
    _fault(
        "services see the trust policy of a role at once",
        "iam.authorization",
        "service_may_assume",
        call("role_seen_by_services", "seams.ROLES.get(role_name)"),
        "eventual_consistency",
    ),
    _fault(
        "a permissions boundary does not limit the roles of services",
        "iam.authorization",
        "role_may",
        assign("limits", "[]"),
        "vm_import",
    ),
    _fault(
        "reads see each change at once",
        "service_model",
        "Service.call",
        assign("past", "None"),
        "eventual_consistency",
    ),
    _fault(
        "what time changes is seen at once",
        "service_model",
        "Service.__init__",
        drop_statement("before_changes"),
        "eventual_consistency",
    ),
    _fault(
        "the reads of EC2 that MiniStack serves see each change at once",
        "service_model",
        "Ec2QueryService.handle_request",
        call("_used_by", "None"),
        "eventual_consistency",
    ),
    _fault(
        "DescribeStacks sees each change at once",
        "cloudformation.stack_reads",
        "StackReads._lagging.lagging",
        assign("lag", "0"),
        "eventual_consistency",
    ),
    _fault(
        "executions are listed by their start",
        "stepfunctions.executions",
        "Executions._list",
        drop_operand("stopDate", beside="startDate"),
        "eventual_consistency",
    ),
    _fault(
        "a page of executions has 1,000",
        "stepfunctions.executions",
        "",
        assign("_PAGE_SIZE", "1000"),
        "eventual_consistency",
    ),
    _fault(
        "executions can be listed at any rate",
        "stepfunctions.executions",
        "Executions._check_rate",
        drop_operand("left", beside="fault"),
        "eventual_consistency",
    ),
    _fault(
        "all accounts and Regions share the rate of listing executions",
        "stepfunctions.executions",
        "Executions._check_rate",
        call("get_account_id", "''"),
        "eventual_consistency",
    ),
    _fault(
        "a token of a list of executions never expires",
        "stepfunctions.executions",
        "",
        assign("_SECONDS_OF_TOKEN", "10**9"),
        "eventual_consistency",
    ),
    # CloudFormation and Lambda
    _fault(
        "an export in use can change",
        "cloudformation.exports",
        "_refuse_if_used",
        never("users"),
        "stack_updates",
    ),
    _fault(
        "a nested stack can change an export in use",
        "cloudformation.exports",
        "_export",
        drop_statement("change_exports"),
        "nested_stacks",
    ),
    _fault(
        "a nested stack with an export in use can be deleted",
        "cloudformation.exports",
        "_with_exports.delete",
        drop_statement("_refuse_if_used"),
        "nested_stacks",
    ),
    _fault(
        "a nested stack may have any number of resources",
        "cloudformation.exports",
        "_with_limits.with_limits",
        drop_statement("check_template_limits"),
        "nested_stacks",
    ),
    _fault(
        "a clean-up deletes at once",
        "cloudformation.stack_updates",
        "_after_a_while.after_a_while",
        drop_statement("sleep"),
        "stack_updates",
    ),
    _fault(
        "a clean-up deletes most types at once",
        "cloudformation.stack_updates",
        "_in_a_thread.in_a_thread",
        always("CLEANUP_IN_PROGRESS"),
        "stack_updates",
    ),
    _fault(
        "no Delete follows a failed create",
        "cloudformation.stack_operations",
        "_with_failed_creations",
        drop_statement("_failed"),
        "stack_operations",
    ),
    _fault(
        "a retried creation does not delete the failed one",
        "cloudformation.stack_operations",
        "_delete_resources",
        drop_statement("run_reentrant"),
        "stack_operations",
    ),
    _fault(
        "the Delete of a failed create has an invented id",
        "cloudformation.stack_operations",
        "_physical_id_of_failed",
        call("pop", "None"),
        "stack_operations",
    ),
    _fault(
        "an event is never delivered twice",
        "lambda_.functions",
        "_asynchronous",
        never("duplicate"),
        "functions",
    ),
    _fault(
        "an event is always delivered twice",
        "lambda_.functions",
        "_asynchronous",
        always("duplicate"),
        "functions",
        "stack_operations",
    ),
    _fault(
        "Lambda retries an event once more",
        "lambda_.functions",
        "_deliver",
        assign("retries", "limits.get('MaximumRetryAttempts', _RETRIES) + 1"),
        "functions",
    ),
    _fault(
        "Lambda retries an event for ever",
        "lambda_.functions",
        "_deliver",
        never("expires"),
        "functions",
    ),
)
