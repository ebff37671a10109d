"""Everything of MiniStack that local_aws uses and replaces. No other module imports it.

MiniStack has no API for what we need, and its private names change between its versions. So each
of them is named here once, with the parameters on which we rely. `check` finds out what the
installed version lacks, and tests/local_aws/test_seams.py tests each name. CONTRIBUTING.md
describes how to move to another version.

MiniStack reads environment variables when it is imported, so import this module after they are set.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable


class SeamError(Exception):
    """The installed MiniStack lacks something that local_aws uses or replaces."""


@dataclass(frozen=True)
class Used:
    """Something of MiniStack that we use as it is.

    Attributes:
        path: Where it is in MiniStack, such as `services.iam._roles`.
        parameters: The first parameters of a function, in their order, as far as we rely on them.
        is_store: Whether it is a dictionary of all accounts and Regions.
    """

    path: str
    parameters: str = ""
    is_store: bool = False

    @property
    def problems(self) -> list[str]:
        """Why we cannot use it; empty if we can."""
        place, _, name = self.path.rpartition(".")
        if problems := _problems(place, name, self.parameters):
            return problems
        is_store = hasattr(_namespace(place)[name], "_data")
        return [_problem(self.path, "is no store")] if self.is_store and not is_store else []


@dataclass(frozen=True)
class Seam:
    """Something of MiniStack that we replace, or that we add to one of its tables.

    Attributes:
        place: A module or a table of MiniStack, such as `services.cloudformation.stacks`.
        names: The names that we replace there, or the keys of the table; empty: each of its keys.
        why: What MiniStack lacks or does differently.
        parameters: The first parameters of the functions, in their order, as far as we rely on
            them.
        also_in: Other modules in which we replace the same names, because they import them.
        is_new: Whether MiniStack does not have the keys, so that we add them.
    """

    place: str
    names: str
    why: str
    parameters: str = ""
    also_in: tuple[str, ...] = ()
    is_new: bool = False

    @property
    def title(self) -> str:
        """What is replaced, as docs/local-aws.md names it."""
        names = ", ".join(f"`{name}`" for name in self.names.split()) or "each"
        return f"`{self.place.rpartition('.')[2]}`: {names}"

    @property
    def keys(self) -> list[str]:
        """The names, or all keys of the table."""
        return self.names.split() or list(_namespace(self.place))

    @property
    def problems(self) -> list[str]:
        """Why we cannot replace it; empty if we can."""
        if _find(self.place) is None:
            return [_problem(self.place, "does not exist")]
        if self.is_new:
            known = _namespace(self.place).keys() & {*self.names.split()}
            return [_problem(f"{self.place}.{name}", "exists") for name in sorted(known)]
        return [
            problem
            for place in (self.place, *self.also_in)
            for name in self.names.split()
            for problem in _problems(place, name, self.parameters)
        ]

    def replace(self, make: Callable[[Any], Any], *names: str) -> None:
        """Replace by what `make` returns for the original, for the whole process.

        Args:
            make: Returns the replacement.
            names: Replace only these. Default: all.
        """
        for name in names or self.keys:
            replacement = make(_namespace(self.place).get(name))
            for place in (self.place, *self.also_in):
                _namespace(place)[name] = replacement

    def put(self, replacement: object, *names: str) -> None:
        """Replace, or add, without the original."""
        self.replace(lambda _: replacement, *names)

    def __call__(self, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        """Call the present function."""
        return self.present(*arguments, **more)

    @property
    def present(self) -> Any:  # noqa: ANN401 - MiniStack ships no types
        """What has the name at present: the original, or what has replaced it."""
        return _namespace(self.place)[self.names]


def check() -> None:
    """Check that MiniStack has everything that we use and replace.

    Raises:
        SeamError: With everything that it lacks.
    """
    problems = [problem for used in USED for problem in used.problems]
    problems += [problem for seam in SEAMS for problem in seam.problems]
    if problems:
        raise SeamError("\n".join(problems))


def _namespace(place: str) -> dict[str, Any]:
    """Return the names in a module, or the entries of a table.

    Raises:
        SeamError: It does not exist.
    """
    if (found := _find(place)) is None:
        raise SeamError(_problem(place, "does not exist"))
    return found


def _find(place: str) -> dict[str, Any] | None:
    try:
        return vars(import_module(f"ministack.{place}"))
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("ministack."):
            raise  # a package that MiniStack needs
    module, _, table = place.rpartition(".")
    return (_find(module) or {}).get(table) if module else None


def _problems(place: str, name: str, parameters: str) -> list[str]:
    path, namespace, expected = f"{place}.{name}", _find(place) or {}, parameters.split()
    if name not in namespace:
        return [_problem(path, "does not exist")]
    if not expected:
        return []
    found = list(inspect.signature(namespace[name]).parameters)
    if found[: len(expected)] == expected:
        return []
    return [_problem(path, f"has the parameters {found}, and local_aws expects {expected}")]


def _problem(path: str, what: str) -> str:
    return (
        f"{path} {what} in MiniStack {version('ministack')}: look for the change in MiniStack's "
        "source, then change local_aws/seams.py and what uses it (CONTRIBUTING.md, 'A new version "
        "of MiniStack')"
    )


USED: Final[list[Used]] = []


def _use(path: str, parameters: str = "", *, is_store: bool = False) -> Any:  # noqa: ANN401 - MiniStack ships no types
    """Return something of MiniStack; None if it does not exist, which `check` reports."""
    USED.append(Used(path, parameters, is_store))
    place, _, name = path.rpartition(".")
    return (_find(place) or {}).get(name)


_store: Final = partial(_use, is_store=True)


# --- stores: MiniStack clears these dictionaries, but never replaces them ---

ROLES: Final = _store("services.iam._roles")
USERS: Final = _store("services.iam._users")
INSTANCE_PROFILES: Final = _store("services.iam._instance_profiles")
AMIS: Final = _store("services.ec2._images")
SNAPSHOTS: Final = _store("services.ec2._snapshots")
VOLUMES: Final = _store("services.ec2._volumes")
EC2_TAGS: Final = _store("services.ec2._tags")
BUCKETS: Final = _store("services.s3._buckets")
FUNCTIONS: Final = _store("services.lambda_svc._functions")
STATE_MACHINES: Final = _store("services.stepfunctions._state_machines")
MAP_RUNS: Final = _store("services.stepfunctions._map_runs")
EXECUTIONS: Final = _store("services.stepfunctions._executions")
STACKS: Final = _store("services.cloudformation._stacks")
EXPORTS: Final = _store("services.cloudformation._exports")

# --- requests and responses ---

AccountRegionScopedDict: Final = _use("core.responses.AccountRegionScopedDict")
get_account_id: Final = _use("core.responses.get_account_id")
get_region: Final = _use("core.responses.get_region")
request_scope: Final = _use("core.responses.request_scope", "account_id region")
json_response: Final = _use("core.responses.json_response", "data")
error_response_json: Final = _use("core.responses.error_response_json", "code message status")
extract_access_key_id: Final = _use("core.router.extract_access_key_id", "headers query_params")
run_reentrant: Final = _use("core.concurrency.run_reentrant", "fn args")
ministack: Final = _use("app.app", "scope receive send")


def contents(store: Any) -> dict[Any, Any]:  # noqa: ANN401
    """Return the entries of all accounts and Regions in a store."""
    found: dict[Any, Any] = store._data  # noqa: SLF001
    return found


def put_contents(store: Any, entries: dict[Any, Any]) -> None:  # noqa: ANN401
    """Replace the entries of all accounts and Regions in a store."""
    store._data = entries  # noqa: SLF001


# --- IAM ---

EvalContext: Final = _use(
    "core.iam_evaluator.EvalContext",
    "principal_arn principal_type principal_account action resource_arn region",
)
evaluate: Final = _use("core.iam_evaluator.evaluate", "ctx policies")
evaluate_resource_policy: Final = _use(
    "core.iam_evaluator.evaluate_resource_policy", "doc ctx service"
)
combine_resource_policy: Final = _use(
    "core.iam_evaluator.combine_resource_policy",
    "identity ctx policy owner_account required limits",
)
parse_policy_document: Final = _use("core.iam_evaluator.parse_policy_document", "doc")
resolve_principal: Final = _use("core.iam_evaluator.resolve_principal", "access_key_id account_id")
enforce: Final = _use(
    "core.iam_evaluator.enforce",
    "access_key_id iam_action service region resource_arn service_context",
)
identity_denial_message: Final = _use(
    "core.iam_actions.identity_denial_message", "action principal_arn resource explicit_deny"
)
iam_error: Final = _use("services.iam._error", "status code message ns")
new_iam_id: Final = _use("services.iam._gen_id", "prefix")
register_session: Final = _use("services.sts.register_session", "access_key session")
_IS_ENFORCED: Final = _use("app.AUTH")


def iam_is_enforced() -> bool:
    """Return whether MiniStack checks permissions."""
    return bool(_IS_ENFORCED)


# --- EC2, S3, KMS ---

# An AMI is a tuple that begins with its id.
PUBLIC_AMIS: Final = _use("services.ec2._STUB_AMIS")
EC2_ACTIONS: Final = _use("services.ec2._ACTION_MAP")
handle_ec2_request: Final = _use(
    "services.ec2.handle_request", "method path headers body query_params"
)
filter_value_matches: Final = _use("services.ec2._filter_value_matches", "actual values")
get_object_data: Final = _use("services.s3._get_object_data", "bucket_name key")
find_key: Final = _use("services.kms._resolve_key", "key_id_or_arn")

# --- CloudFormation ---

query_parameter: Final = _use("services.cloudformation.handlers._p", "params key")
cloudformation_response: Final = _use(
    "services.cloudformation.handlers._xml", "status root_tag inner"
)
cloudformation_error: Final = _use("services.cloudformation.handlers._error", "code message status")
find_stack: Final = _use("services.cloudformation.handlers._resolve_stack", "stack_name")
find_change_set: Final = _use(
    "services.cloudformation.changesets._find_change_set", "cs_name stack_name"
)
imported_export_names: Final = _use(
    "services.cloudformation.handlers._imported_export_names", "stack stack_name"
)
check_template_limits: Final = _use(
    "services.cloudformation.engine._validate_template_limits", "template"
)
dependencies: Final = _use(
    "services.cloudformation.engine._extract_deps", "resource_def all_resource_names"
)

# --- Lambda and Step Functions ---

_WORKERS: Final = _use("core.lambda_runtime._workers")
_WORKERS_LOCK: Final = _use("core.lambda_runtime._lock")
execution_credentials: Final = _use("core.lambda_runtime.execution_credentials", "config")
end_functions: Final = _use("core.lambda_runtime.reset")
find_function: Final = _use("services.lambda_svc._get_func_record_for_ref", "function_ref")
execution_record: Final = _use("services.lambda_svc._execution_record_for_config", "func config")
execute_function: Final = _use("services.lambda_svc._execute_function", "func event")
route_async_failure: Final = _use(
    "services.lambda_svc._route_async_failure", "target_arn func_name event result"
)
ExecutionError: Final = _use("services.stepfunctions._ExecutionError", "error cause")


def busy_processes() -> list[tuple[dict[str, Any], Any]]:
    """Return the configuration of each function that runs, and its process."""
    with _WORKERS_LOCK:
        return [
            (worker.config, worker._proc)  # noqa: SLF001
            for workers in _WORKERS.values()
            for worker in workers
            if worker.in_use and worker._proc  # noqa: SLF001
        ]


# --- what we replace ---

SERVICE_REGISTRY: Final = Seam(
    "app.SERVICE_REGISTRY", "imagebuilder", "MiniStack has no Image Builder", is_new=True
)
LOADED_MODULES: Final = Seam(
    "app._loaded_modules",
    "imagebuilder",
    "A reset of MiniStack does not delete what our services have",
    is_new=True,
)
SERVICE_PATTERNS: Final = Seam(
    "core.router.SERVICE_PATTERNS",
    "imagebuilder",
    "MiniStack does not know the host names of Image Builder",
    is_new=True,
)
IMAGE_BUILDER_HANDLER: Final = Seam(
    "app.SERVICE_HANDLERS", "imagebuilder", "Our Image Builder handles its requests", is_new=True
)
EC2_HANDLER: Final = Seam(
    "app.SERVICE_HANDLERS",
    "ec2",
    "MiniStack has no VM Import, no IMDS support and no deprecation of AMIs, and deletes, "
    "describes, tags and shares AMIs and snapshots without EC2's checks",
)
EXTRACT_IAM_ACTION: Final = Seam(
    "core.iam_actions",
    "extract_iam_action",
    "MiniStack would check our operations without their condition keys, so they check themselves",
    "service method path headers body query_params",
)
GATHER_ROLE_POLICIES: Final = Seam(
    "core.iam_evaluator",
    "_gather_role_policies",
    "A change of a role's policies has an effect at once in MiniStack",
    "role_name account_id",
)
GATHER_USER_POLICIES: Final = Seam(
    "core.iam_evaluator",
    "_gather_user_policies",
    "The same is true for users",
    "user_name account_id",
)
PERMISSIONS_BOUNDARY: Final = Seam(
    "core.iam_evaluator",
    "_permissions_boundary",
    "The same is true for permissions boundaries",
    "store name account_id",
)
IAM_ACTIONS: Final = Seam(
    "services.iam._IAM_HANDLERS",
    "CreateRole DeleteRole UpdateAssumeRolePolicy PutRolePolicy DeleteRolePolicy AttachRolePolicy "
    "DetachRolePolicy PutRolePermissionsBoundary DeleteRolePermissionsBoundary CreateUser "
    "DeleteUser PutUserPolicy DeleteUserPolicy AttachUserPolicy DetachUserPolicy "
    "PutUserPermissionsBoundary DeleteUserPermissionsBoundary AddUserToGroup RemoveUserFromGroup "
    "PutGroupPolicy DeleteGroupPolicy AttachGroupPolicy DetachGroupPolicy CreatePolicyVersion",
    "MiniStack does not limit the inline policies of a role, and a change has an effect at once",
    "p",
)
IAM_TYPES: Final = Seam(
    "services.cloudformation.provisioners._RESOURCE_HANDLERS",
    "AWS::IAM::Role AWS::IAM::Policy AWS::IAM::ManagedPolicy AWS::IAM::User",
    "The same is true for roles, policies and users of a stack",
)
INSTANCE_PROFILE_TYPE: Final = Seam(
    "services.cloudformation.provisioners._RESOURCE_HANDLERS",
    "AWS::IAM::InstanceProfile",
    "Ref of an instance profile returns its ARN in MiniStack, and its name in AWS",
)
FUNCTION_TYPE: Final = Seam(
    "services.cloudformation.provisioners._RESOURCE_HANDLERS",
    "AWS::Lambda::Function",
    "MiniStack does not check whether Lambda can assume the role of a function",
)
LOG_GROUP_TYPE: Final = Seam(
    "services.cloudformation.provisioners._RESOURCE_HANDLERS",
    "AWS::Logs::LogGroup",
    "MiniStack does not check whether CloudWatch Logs may use the key of a log group",
)
IMAGE_BUILDER_TYPES: Final = Seam(
    "services.cloudformation.provisioners._RESOURCE_HANDLERS",
    "AWS::ImageBuilder::ImageRecipe AWS::ImageBuilder::Component "
    "AWS::ImageBuilder::DistributionConfiguration AWS::ImageBuilder::ImagePipeline "
    "AWS::ImageBuilder::InfrastructureConfiguration",
    "MiniStack has no resource types of Image Builder",
    is_new=True,
)
IMAGE_BUILDER_REPLACEMENTS: Final = Seam(
    "services.cloudformation.provisioners._REPLACING_PROPERTIES",
    IMAGE_BUILDER_TYPES.names,
    "MiniStack does not know which of their properties cannot be updated",
    is_new=True,
)
NESTED_STACK_TYPE: Final = Seam(
    "services.cloudformation.provisioners._RESOURCE_HANDLERS",
    "AWS::CloudFormation::Stack",
    "Nested stacks of MiniStack have no exports",
)
NESTED_CAPABILITIES: Final = Seam(
    "services.cloudformation.provisioners",
    "_check_nested_stack_capabilities",
    "The template of a nested stack has no limits in MiniStack",
    "parent_stack_name template",
)
EACH_RESOURCE_TYPE: Final = Seam(
    "services.cloudformation.provisioners._RESOURCE_HANDLERS",
    "",
    "CloudFormation does not check permissions for resources in MiniStack",
)
CREATE_CHANGE_SET: Final = Seam(
    "services.cloudformation.handlers._ACTION_HANDLERS",
    "CreateChangeSet",
    "MiniStack ignores the RoleARN of a change set",
    "params",
)
STACK_OPERATIONS: Final = Seam(
    "services.cloudformation.handlers._ACTION_HANDLERS",
    "CreateStack UpdateStack DeleteStack ExecuteChangeSet RollbackStack ContinueUpdateRollback",
    "MiniStack ignores the RoleARN of a stack operation",
    "params",
)
DELETE_STACK: Final = Seam(
    "services.cloudformation.handlers._ACTION_HANDLERS",
    "DeleteStack",
    "MiniStack deletes a stack that is being updated",
    "params",
)
DESCRIBE_STACKS: Final = Seam(
    "services.cloudformation.handlers._ACTION_HANDLERS",
    "DescribeStacks",
    "DescribeStacks of MiniStack shows each change at once",
    "params",
)
ADD_STACK_EVENT: Final = Seam(
    "services.cloudformation.stacks",
    "_add_event",
    "MiniStack does not keep earlier descriptions of a stack",
    "stack_id stack_name logical_id resource_type status reason physical_id",
    also_in=("services.cloudformation.handlers", "services.cloudformation.changesets"),
)
STACK_TIME: Final = Seam(
    "services.cloudformation.stacks",
    "now_iso",
    "The dates of stacks, change sets and stack events are real time in MiniStack",
    also_in=("services.cloudformation.handlers", "services.cloudformation.changesets"),
)
EVALUATE_CONDITIONS: Final = Seam(
    "services.cloudformation.engine",
    "_evaluate_conditions",
    "MiniStack takes Fn::Join in a condition for true",
    "template params",
    also_in=(
        "services.cloudformation.changesets",
        "services.cloudformation.handlers",
        "services.cloudformation.stacks",
    ),
)
RESPONSE_URL: Final = Seam(
    "services.cloudformation.custom_resource",
    "_response_url",
    "The ResponseURL has no date in MiniStack",
    "token",
)
DELIVER_RESPONSE: Final = Seam(
    "services.cloudformation.custom_resource",
    "deliver_response",
    "MiniStack ignores the physical id of a FAILED response",
    "token response",
)
INVOKE_CUSTOM_RESOURCE: Final = Seam(
    "services.cloudformation.custom_resource",
    "invoke_custom_resource",
    "MiniStack invokes the function of a custom resource synchronously, and checks no permission",
    "request_type logical_id props",
)
PROVISION_RESOURCE: Final = Seam(
    "services.cloudformation.provisioners",
    "_provision_resource",
    "MiniStack forgets a resource whose creation fails, and continues a creation during a deletion",
    "resource_type logical_id props stack_name",
    also_in=("services.cloudformation.stacks",),
)
DEPLOY_STACK: Final = Seam(
    "services.cloudformation.stacks",
    "_deploy_stack_async",
    "MiniStack does not delete a failed creation before or after it creates the resource again",
    "stack_name stack_id template param_values disable_rollback tags is_update previous_stack",
    also_in=("services.cloudformation.handlers", "services.cloudformation.changesets"),
)
ROLL_BACK: Final = Seam(
    "services.cloudformation.stacks",
    "_roll_back_operation",
    "MiniStack sends no Delete for a failed creation in a rollback",
    "stack_name stack_id stack operation",
    also_in=("services.cloudformation.handlers",),
)
DELETE_STACK_LATER: Final = Seam(
    "services.cloudformation.stacks",
    "_delete_stack_async",
    "MiniStack deletes a stack while its creation continues",
    "stack_name stack_id",
    also_in=("services.cloudformation.handlers",),
)
DIFF_RESOURCES: Final = Seam(
    "services.cloudformation.stacks",
    "_diff_resources",
    "A change set of MiniStack does not add a resource whose creation failed",
    "old_template new_template resources",
    also_in=("services.cloudformation.changesets",),
)
RUNS_IN_A_THREAD: Final = Seam(
    "services.cloudformation.stacks",
    "_runs_on_worker_thread",
    "MiniStack deletes most types where they cannot wait for the clean-up",
    "resource_type",
)
# The next three are replaced only here, so nested stacks keep MiniStack's order and clean-up.
RESOLVE_OUTPUTS: Final = Seam(
    "services.cloudformation.stacks",
    "_resolve_stack_outputs",
    "MiniStack lets an update change an export that another stack imports",
    "outputs_defs conditions resources param_values mappings stack_name stack_id",
)
TOPOLOGICAL_SORT: Final = Seam(
    "services.cloudformation.stacks",
    "_topological_sort",
    "Resources that do not depend on each other always have the same order in MiniStack",
    "resources conditions",
)
DELETE_RESOURCE: Final = Seam(
    "services.cloudformation.stacks",
    "_delete_resource",
    "MiniStack deletes at once what an update replaced",
    "resource_type physical_id props stack_name logical_id",
)
WORKER_SCRIPT: Final = Seam(
    "core.lambda_runtime",
    "_PYTHON_WORKER_SCRIPT",
    "Python functions of MiniStack do not log through `logging`, and use real time",
)
INVOKE_LATER: Final = Seam(
    "services.lambda_svc",
    "invoke_async_with_retry",
    "MiniStack retries an event in real time, and does not retry a throttled one",
    "func event",
)
EXECUTE_FOR_CLOUDFORMATION: Final = Seam(
    "services.lambda_svc",
    "_execute_function_with_config_scope",
    "CloudFormation waits in MiniStack until the function of a custom resource ends",
    "func event",
)
ADD_PERMISSION: Final = Seam(
    "services.lambda_svc",
    "_add_permission",
    "The policy of a function has no limit in MiniStack",
    "func_name",
)
EMIT_LOGS: Final = Seam(
    "services.lambda_svc",
    "_emit_lambda_logs",
    "A function of MiniStack writes its log without the permissions of its role",
    "func",
)
APPEND_LOG_EVENTS: Final = Seam(
    "services.cloudwatch_logs",
    "_append_log_events",
    "The lines of a function's log have real time in MiniStack",
    "stream events",
)
FUNCTION_ENVIRONMENT: Final = Seam(
    "core.lambda_runtime",
    "execution_credentials",
    "A function of MiniStack does not know the log group of its LoggingConfig",
    "config",
)
ENCRYPTED_OPERATIONS: Final = Seam(
    "services.stepfunctions",
    "_create_state_machine _update_state_machine _describe_state_machine _start_execution "
    "_describe_execution _get_execution_history",
    "MiniStack does not check whether the key of a state machine is enabled, nor whether the "
    "caller may use it",
    "data",
)
LIST_EXECUTIONS: Final = Seam(
    "services.stepfunctions",
    "_list_executions",
    "ListExecutions of MiniStack has other pages, and neither a rate nor a lag",
    "data",
)
EXECUTE_TASK: Final = Seam(
    "services.stepfunctions",
    "_execute_task",
    "MiniStack calls a function without the state machine, so its role could not be checked",
    "state_def raw_input execution ctx",
)
CALL_FUNCTION: Final = Seam(
    "services.stepfunctions",
    "_call_lambda",
    "MiniStack does not check whether the role of a state machine may call the function",
    "func_ref event",
)
SLEEP: Final = Seam(
    "services.stepfunctions", "_scaled_sleep", "MiniStack waits in real time", "seconds"
)
SLEEP_UNTIL: Final = Seam(
    "services.stepfunctions",
    "_sleep_until",
    "A Wait state with a timestamp waits in real time too",
    "iso_ts",
)
EXECUTION_TIME: Final = Seam(
    "services.stepfunctions", "now_iso", "The dates of executions are real time in MiniStack"
)

SEAMS: Final = tuple(value for value in list(vars().values()) if isinstance(value, Seam))
