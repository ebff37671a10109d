"""Faults of handler and constructs: each loses, orphans or doubles an image, or hangs a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.mutations.changes import (
    always,
    argument,
    assign,
    call,
    drop_entry,
    drop_finally,
    drop_keyword,
    drop_operand,
    drop_statement,
    ignore_in_handler,
    iterate,
    never,
    raise_in_handler,
    returns,
)
from tests.mutations.mutation import Mutation

if TYPE_CHECKING:
    from tests.mutations.changes import Change

_HANDLER_TESTS: Final = (
    "tests/unit",
    "tests/lifecycle/test_sequences.py",
    "tests/handler",
    "tests/lifecycle",
)
_CONSTRUCT_TESTS: Final = tuple(
    f"tests/construct/test_{name}.py"
    for name in ("vm_import_task", "vm_import_role", "imported_vm_image", "policies")
)


def _fault(name: str, module: str, function: str, change: Change) -> Mutation:
    tests = _CONSTRUCT_TESTS if module.startswith("cdk_vm_import") else _HANDLER_TESTS
    return Mutation(name, module, function, change, tests)


def _fault_of_settings(name: str, module: str, function: str, change: Change) -> Mutation:
    tests = ("tests/handler/test_ami_settings.py",)
    return Mutation(name, f"ami_settings.{module}", function, change, tests)


R = "Reconciler"
MUTATIONS = (
    # identity and properties
    _fault("the tag of the token is left out", "identity", "Record.tag", returns("{}")),
    _fault(
        "the token is different each time", "identity", "tokens_of", call("uuid5", "uuid.uuid4()")
    ),
    _fault(
        "the token does not depend on the resource",
        "identity",
        "tokens_of",
        drop_entry("logical_id"),
    ),
    _fault(
        "the token does not depend on the stack", "identity", "tokens_of", drop_entry("stack_id")
    ),
    _fault("there is only one token", "identity", "", assign("MAX_TOKENS", "1")),
    _fault("the tag of the stack is left out", "identity", "Owner.tags", drop_entry("STACK")),
    _fault("resources of others count as own", "identity", "Owner.owns", returns("True")),
    _fault("nothing belongs to another resource", "identity", "Owner.is_another", returns("False")),
    _fault(
        "the client token of the user is ignored",
        "image.properties",
        "ImageProperties.request",
        drop_operand("client_token"),
    ),
    _fault(
        "a name of any form is accepted",
        "image.properties",
        "ImageProperties.read",
        never("fullmatch"),
    ),
    _fault("no image is retained", "image.resource", "Images._was_retained", returns("False")),
    # find or create
    _fault("the lookup is left out", "reconciler", f"{R}._find_or_create", call("find", "[]")),
    _fault(
        "failed images count as usable", "aws.image_builder", "Image.is_usable", returns("True")
    ),
    _fault(
        "an image in the hands of another resource is changed",
        "reconciler",
        f"{R}.update",
        drop_operand("is_another"),
    ),
    _fault(
        "the answer of the import is not checked",
        "reconciler",
        f"{R}._create_under",
        never("is_another"),
    ),
    _fault(
        "a lost answer is a failure", "reconciler", f"{R}._create_under", assign("existing", "None")
    ),
    _fault(
        "a used token is an error",
        "reconciler",
        f"{R}._create_under",
        drop_operand("is_token_used", beside="existing"),
    ),
    _fault("a failed Create names no id", "index", "_placeholder", returns("''")),
    _fault(
        "a failed Update names the old id",
        "reconciler",
        f"{R}._find_or_create",
        argument("failures_name", 0, "''"),
    ),
    _fault(
        "an Update that runs beside its rollback deletes the image of the rollback",
        "reconciler",
        f"{R}._is_left",
        drop_operand("is_later"),
    ),
    _fault(
        "an Update that runs beside its rollback deletes an image without a record",
        "reconciler",
        f"{R}._clean_up_after",
        call("put_in_order", "None"),
    ),
    _fault(
        "a rollback deletes the image that CloudFormation deletes",
        "reconciler",
        f"{R}._is_left",
        drop_operand("physical_id"),
    ),
    _fault(
        "a rollback deletes nothing", "reconciler", f"{R}._clean_up_after", never("_rolls_back_to")
    ),
    _fault(
        "a rollback deletes nothing that a placeholder names",
        "reconciler",
        f"{R}._rolls_back_to",
        drop_operand("placeholder", beside="result_id"),
    ),
    _fault(
        "a rollback from an id deletes nothing",
        "reconciler",
        f"{R}._rolls_back_to",
        drop_operand("result_id"),
    ),
    _fault(
        "a rollback forgets the successor of an image that was deleted by hand",
        "reconciler",
        f"{R}._rolls_back_to",
        call("stack", "None"),
    ),
    _fault(
        "a Delete does not wait for a concurrent Create",
        "aws.session",
        "",
        assign("READS_WHILE_OTHERS_WORK", "1"),
    ),
    _fault(
        "a Delete ignores an id that CloudFormation invented",
        "reconciler",
        f"{R}._named_by",
        never("properties"),
    ),
    _fault("a Delete ignores a placeholder", "reconciler", f"{R}._named_by", call("read", "None")),
    _fault(
        "a Delete takes the image of a later event",
        "reconciler",
        f"{R}.delete",
        call("_belongs_to_another_event", "False"),
    ),
    _fault(
        "a Delete by a placeholder takes the image of a later event",
        "reconciler",
        f"{R}._belongs_to_another_event",
        call("read", "None"),
    ),
    _fault(
        "a Delete by an invented id takes the image of a later event",
        "reconciler",
        f"{R}._belongs_to_another_event",
        never("changed"),
    ),
    _fault(
        "a Delete by an invented id leaves the images of a stack that is deleted",
        "reconciler",
        f"{R}._belongs_to_another_event",
        never("is_deleted"),
    ),
    _fault(
        "an image does not record who created it", "reconciler", f"{R}._record", always("is_new")
    ),
    _fault(
        "an image does not record who adopted it",
        "reconciler",
        f"{R}._record",
        drop_statement("adopted_by"),
    ),
    _fault("a denied Delete fails", "reconciler", f"{R}.delete", raise_in_handler("AwsError")),
    _fault(
        "a Delete deletes an image without the tags of the resource",
        "reconciler",
        f"{R}.delete_existing",
        never("owns"),
    ),
    _fault(
        "a rollback deletes a retained image that the update did not find",
        "image.resource",
        "Images._was_retained",
        always("_LONGEST_OPERATION"),
    ),
    _fault(
        "a rollback deletes a retained image that the update adopted",
        "image.resource",
        "Images._was_retained",
        drop_operand("adopted_by", beside="_LONGEST_OPERATION"),
    ),
    _fault(
        "a new policy does not delete the old image",
        "image.resource",
        "Images._was_retained",
        call("stack", "None"),
    ),
    _fault(
        "an image is retained though nobody retains it",
        "image.resource",
        "Images.delete",
        drop_operand("is_retained", beside="_was_retained"),
    ),
    _fault("failed images are left", "reconciler", f"{R}._find_or_create", drop_finally()),
    _fault(
        "a running image is not cancelled",
        "image.resource",
        "Images.delete",
        call("cancel", "None"),
    ),
    _fault(
        "a running image is deleted at once",
        "image.resource",
        "Images.delete",
        call("read_until_found", "True"),
    ),
    _fault(
        "the tags of the resource are not put back",
        "reconciler",
        f"{R}._change_tags",
        drop_entry("_owner"),
    ),
    _fault(
        "the tag of the token is not put back",
        "reconciler",
        f"{R}._change_tags",
        drop_entry("record"),
    ),
    _fault(
        "tags that were removed from the template stay",
        "reconciler",
        f"{R}._change_tags",
        argument("change_tags", 2, "[]"),
    ),
    _fault(
        "tags are compared only with what is read",
        "reconciler",
        f"{R}._change_tags",
        drop_statement("items", "changed", "previous", "dict"),
    ),
    _fault(
        "an image that was deleted a moment ago is used again",
        "reconciler",
        f"{R}._repeats",
        drop_operand("is_not_found", beside="_type"),
    ),
    _fault(
        "an image that is listed late is imported again",
        "image.resource",
        "Images.create",
        never("may_pass"),
    ),
    _fault(
        "images with the same ARN are cancelled under the same token",
        "aws.image_builder",
        "ImageBuilder.cancel",
        call("uuid5", "uuid.uuid5(uuid.NAMESPACE_URL, image.id)"),
    ),
    _fault(
        "the status of the stack may be that before the event",
        "aws.stacks",
        "Stacks.get",
        call("sleep", "None"),
    ),
    _fault("a new image is read only once", "aws.session", "", assign("READS", "1")),
    _fault(
        "a failed image ends the search for one that is being created",
        "reconciler",
        f"{R}._find.is_found",
        call("any", "bool(found)"),
    ),
    _fault(
        "a rollback to a failed image fails",
        "reconciler",
        f"{R}._find_or_create",
        raise_in_handler("ImportTaskError"),
    ),
    _fault(
        "a failed import task is not noticed before the import",
        "image.resource",
        "Images.check",
        never("is_usable"),
    ),
    _fault(
        "an unknown import task is not noticed before the import",
        "image.resource",
        "Images.check",
        always("task", "is_usable"),
    ),
    # executions
    _fault(
        "an execution is not named after its request",
        "cloudformation.event",
        "Event.id",
        drop_entry("RequestId"),
    ),
    _fault(
        "an execution that exists is an error",
        "aws.step_functions",
        "StateMachine.start",
        raise_in_handler("AwsError"),
    ),
    _fault(
        "the executions of all resources are stopped",
        "cloudformation.executions",
        "_of",
        always("startswith"),
    ),
    _fault(
        "an event stops its own execution",
        "cloudformation.executions",
        "put_in_order",
        always("name", "own"),
    ),
    _fault(
        "earlier executions continue",
        "cloudformation.executions",
        "put_in_order",
        call("stop", "None"),
    ),
    _fault(
        "a superseded event is carried out",
        "cloudformation.executions",
        "put_in_order",
        never("any"),
    ),
    _fault(
        "executions that have ended are not looked at",
        "cloudformation.executions",
        "put_in_order",
        call("ended_since", "[]"),
    ),
    _fault(
        "events are ordered by their delivery",
        "cloudformation.executions",
        "_is_later",
        never("sent"),
    ),
    _fault(
        "events of the same second have no order",
        "cloudformation.executions",
        "_is_later",
        call("bool", "False"),
    ),
    _fault(
        "a late event is carried out if a later one is not listed yet",
        "cloudformation.executions",
        "put_in_order",
        call("sleep", "None"),
    ),
    _fault("the order of events is not checked", "index", "_take", call("_put_in_order", "None")),
    _fault(
        "an event is carried out though its order is not known",
        "index",
        "_put_in_order",
        ignore_in_handler("VmImportError"),
    ),
    _fault(
        "a Delete fails without the state machine",
        "index",
        "on_event",
        raise_in_handler("Exception"),
    ),
    _fault("what may succeed later is a failure", "index", "_take", never("may_pass")),
    _fault(
        "a step that failed is taken again when the function is killed after its response",
        "index",
        "_take",
        always("Delete"),
    ),
    _fault(
        "an unknown resource type has no error of its own",
        "index",
        "_take",
        never("resource_type", "_STEPS"),
    ),
    _fault(
        "nobody follows an import that nobody waits for",
        "index",
        "_take",
        never("outcome", "follow_up"),
    ),
    _fault(
        "a follow-up has the ResponseURL",
        "cloudformation.executions",
        "start_follow_up",
        always("ResponseURL"),
    ),
    # waiting
    _fault("the wait never ends", "contract", "wait_limit", returns("10**9")),
    _fault(
        "a failed import task does not end the wait",
        "image.progress",
        "poll",
        assign("task_failed", "False"),
    ),
    _fault("throttling ends the wait", "image.progress", "poll", never("is_transient")),
    _fault(
        "a failed wait leaves its image", "image.resource", "step", always("is_known", "follow_up")
    ),
    _fault(
        "a failed wait deletes the image in use",
        "image.resource",
        "step",
        drop_operand("is_known", beside="follow_up"),
    ),
    _fault(
        "a failed wait names the image, which a later event may adopt",
        "image.resource",
        "step",
        argument("failures_name", 0, "state.image"),
    ),
    _fault("an image that hands on fails", "image.waiting", "Wait.step", never("continues")),
    _fault("the last link hands on", "image.waiting", "Wait.step", always("continues")),
    _fault(
        "a link waits for an image that had failed before",
        "image.wait_link",
        "_wait",
        never("has_failed"),
    ),
    _fault(
        "a link of a failed image succeeds in each deployment",
        "image.wait_link",
        "_is_rolling_back",
        returns("True"),
    ),
    _fault("the Delete of a link waits", "image.wait_link", "step", never("Delete")),
    _fault(
        "an AMI that could not be tagged is forgotten",
        "image.waiting",
        "Wait._tag",
        never("may_pass"),
    ),
    _fault(
        "one poll that does not find the image ends the wait",
        "image.waiting",
        "",
        assign("_GONE", "1"),
    ),
    _fault(
        "an image that is gone is waited for", "image.waiting", "Wait._confirm", never("missed")
    ),
    _fault(
        "a time-out counts as available",
        "image.waiting",
        "Wait.step",
        always("ami"),
    ),
    _fault(
        "an AMI that Image Builder does not name is not found",
        "image.progress",
        "_available",
        assign("found", "[]"),
    ),
    _fault("the AMI of a task is found only by its name", "amis", "Amis.find", never("task")),
    _fault(
        "an AMI that is not listed yet is not tagged",
        "amis",
        "Amis.tag",
        call("NotListedError", "RuntimeError()"),
    ),
    _fault(
        "the polling interval does not grow",
        "image.waiting",
        "polling_interval",
        drop_statement("age"),
    ),
    _fault(
        "a deprecated image is unusable",
        "aws.image_builder",
        "",
        assign(
            "_FAILED", "frozenset({'FAILED', 'CANCELLED', 'DELETED', 'DEPRECATED', 'DISABLED'})"
        ),
    ),
    # errors
    _fault(
        "an image that is gone is an error",
        "aws.image_builder",
        "ImageBuilder.get",
        raise_in_handler("AwsError"),
    ),
    _fault(
        "an error of DeleteImage is ignored",
        "aws.image_builder",
        "ImageBuilder.delete",
        ignore_in_handler("AwsError"),
    ),
    _fault("throttling is a failure", "errors", "AwsError.__init__", assign("is_passing", "False")),
    _fault(
        "a fault of AWS is a failure",
        "errors",
        "AwsError.__init__",
        drop_operand("status", beside="is_lost"),
    ),
    _fault(
        "a denied call is a failure at once",
        "cloudformation.step",
        "State.may_pass",
        drop_operand("is_brief", beside="is_transient"),
    ),
    _fault(
        "a denied call is repeated for 90 seconds since the event, not since its denial",
        "cloudformation.step",
        "State.may_pass",
        assign("is_new", "self.elapsed < 90"),
    ),
    _fault(
        "too many tags are added before others are removed",
        "tags",
        "change_tags",
        assign("is_removed_first", "False"),
    ),
    _fault(
        "an import that cannot be cancelled stalls the rollback",
        "image.resource",
        "Images._cancel_task",
        call("cancel", "None"),
    ),
    _fault(
        "the task of another image is cancelled",
        "image.resource",
        "Images._cancel_task",
        always("images_imported_from"),
    ),
    _fault(
        "the task of another stack is cancelled",
        "image.resource",
        "Images._cancel_task",
        drop_operand("STACK"),
    ),
    _fault(
        "an image that GetImage may not show is not found",
        "aws.image_builder",
        "ImageBuilder.get",
        never("is_denied"),
    ),
    _fault(
        "the request id changes with each event",
        "image.resource",
        "_attributes",
        drop_operand("record"),
    ),
    _fault(
        "the ClientToken attribute is always the first token",
        "image.resource",
        "_attributes",
        drop_operand("token", beside="lookup"),
    ),
    _fault(
        "an import that is still running is deleted",
        "image.resource",
        "Images.delete",
        never("is_in_use"),
    ),
    # the response
    _fault(
        "a failure is responded to as a success",
        "cloudformation.response",
        "CfnResource._wrap_function",
        call("Response", "Response(physical_id, {}, reason)"),
    ),
    _fault(
        "a response is sent twice",
        "cloudformation.response",
        "CfnResource._deliver",
        call("_put", "self._put(body) or self._put(body)"),
    ),
    _fault(
        "a refused response counts as delivered",
        "cloudformation.response",
        "CfnResource._put",
        always("status"),
    ),
    _fault(
        "a response may have any length",
        "cloudformation.response",
        "",
        assign("_MAX_RESPONSE", "8192"),
    ),
    _fault(
        "a failed event has an empty id",
        "cloudformation.response",
        "CfnResource.generate_physical_id",
        returns("''"),
    ),
    _fault(
        "an undelivered response is forgotten",
        "cloudformation.response",
        "CfnResource._send",
        call("_deliver", "None"),
    ),
    _fault(
        "a long reason loses its cause before its hint",
        "cloudformation.response",
        "encode",
        iterate("whole", "(reason,)"),
    ),
    _fault(
        "a long reason loses its ids",
        "cloudformation.response",
        "encode",
        iterate("ids", "(f' ({log_group})',)"),
    ),
    _fault(
        "the hint is lost between two steps",
        "cloudformation.step",
        "State.reason",
        returns("Reason(self.failure or self.import_failure)"),
    ),
    # the log and the metrics
    _fault("each poll is logged", "image.progress", "report", always("now", "state")),
    _fault(
        "progress is logged again after each problem",
        "image.progress",
        "report",
        never("problem"),
    ),
    _fault("each repetition is logged", "index", "_log_repetition", always("summary", "problem")),
    _fault(
        "a denial is another one with each encoded message",
        "errors",
        "AwsError.summary",
        returns("self.reason.cause"),
    ),
    _fault(
        "the metrics of an image that a link never saw are those of the link",
        "image.wait_link",
        "step",
        assign("resource", "''"),
    ),
    _fault(
        "an import has an outcome for each follow-up",
        "image.resource",
        "step",
        never("is_running", "created_by"),
    ),
    _fault(
        "a deletion of the stack is a failed import",
        "image.resource",
        "Images.delete",
        drop_statement("stop_follow_ups"),
    ),
    _fault(
        "the follow-up of another image is stopped",
        "cloudformation.executions",
        "_prefix_of_follow_ups",
        call("_hash", "_hash(event.owner.stack_id, event.owner.logical_id)"),
    ),
    _fault(
        "an image that is gone is a failure though nobody waits",
        "image.waiting",
        "Wait.step",
        never("follow_up", "ImageGoneError"),
    ),
    _fault(
        "the outcome of an import waits for the tags of its AMI",
        "image.waiting",
        "Wait.step",
        never("follow_up", "waited"),
    ),
    _fault(
        "the AMI has no tags if they are denied for minutes",
        "cloudformation.step",
        "State.may_pass",
        assign("is_allowed_later", "False"),
    ),
    _fault(
        "a denied call ends the follow-up",
        "image.progress",
        "poll",
        never("is_denied", "continues_if_denied"),
    ),
    _fault("a line of the log names no event", "log", "JsonFormatter.__init__", never("event")),
    _fault(
        "metrics come with each poll",
        "image.waiting",
        "Wait.step",
        call("report", "end(ImportOutcome.AVAILABLE, '') or state"),
    ),
    _fault(
        "an image that was AVAILABLE before has metrics of an import",
        "image.waiting",
        "Wait.step",
        always("waited", "is_new"),
    ),
    _fault(
        "a failure is no failure in the metrics",
        "image.progress",
        "report_end",
        assign("has_failed", "False"),
    ),
    # pages
    _fault(
        "only the first page of a list is read",
        "aws.session",
        "AwsApi._pages",
        call("paginate", "[getattr(aws_client(self.service), operation)(**request)]"),
    ),
    _fault(
        "only the first page of executions is read",
        "aws.step_functions",
        "StateMachine._list",
        call(
            "_pages",
            "[self._call('list_executions', stateMachineArn=self._arn, **request)]",
        ),
    ),
    _fault(
        "only the first page of import tasks is read",
        "aws.ec2",
        "Ec2.tasks",
        call("_pages", "[self._call('describe_import_image_tasks', MaxResults=1000)]"),
    ),
    _fault(
        "a task that is being deleted is imported",
        "aws.ec2",
        "",
        assign("_FAILED", "frozenset({'deleted'})"),
    ),
    _fault(
        "a replayed image with another token is accepted",
        "reconciler",
        "Reconciler._create_under",
        never("created", "token"),
    ),
    # what an attack found
    _fault(
        "an image that was retained today is deleted",
        "image.resource",
        "Images._operation_begun",
        returns("None"),
    ),
    _fault(
        "errors of different kinds share their time",
        "cloudformation.step",
        "State.may_pass",
        drop_operand("delayed_by", "kind"),
    ),
    _fault(
        "an image that is listed late has no time after an outage",
        "image.resource",
        "Images.create",
        call("may_pass", "self.repeats(not_listed)"),
    ),
    _fault("the date of an event is exact", "reconciler", "", assign("_OLDEST_DATE", "0")),
    _fault("a clean-up that fails hides the time-out", "index", "_take", never("import_failure")),
    _fault(
        "a time-out cancels the task of the stack",
        "image.resource",
        "Images.delete",
        drop_operand("import_failure", beside="properties"),
    ),
    _fault(
        "deleting a snapshot is not repeated", "aws.ec2", "Ec2.delete_snapshots", never("repeats")
    ),
    _fault(
        "a snapshot that may be a disk is deleted", "amis", "Amis.delete", call("_not_tagged", "[]")
    ),
    _fault(
        "an AMI stays without a word", "image.resource", "Images.delete", never("delete_ami", "ami")
    ),
    _fault(
        "a denied list of snapshots fails a delete without an AMI",
        "amis",
        "Amis.delete",
        assign("is_tolerated", "nullcontext()"),
    ),
    _fault(
        "a Delete counts as the beginning of a stack operation",
        "cloudformation.executions",
        "",
        assign("_DELETE", "'-'"),
    ),
    _fault(
        "a disk gets the tags of an image when EC2 has forgotten its task",
        "amis",
        "Amis.tag",
        call("_not_tagged", "()"),
    ),
    # what an import creates
    _fault(
        "snapshots that DeregisterImage did not delete are forgotten",
        "aws.ec2",
        "Ec2.deregister",
        call("delete_snapshots", "{}"),
    ),
    _fault(
        "snapshots that cannot be deleted are not reported",
        "aws.ec2",
        "Ec2.delete_snapshots",
        drop_statement("refused", "snapshot_id", "code"),
    ),
    _fault(
        "the snapshots of a failed import are left",
        "amis",
        "Amis._delete_snapshots_of_failed",
        returns("{}"),
    ),
    _fault(
        "the snapshots of a failed import are found but not deleted",
        "amis",
        "Amis._delete_snapshots_of_failed",
        call("delete_snapshots", "{}"),
    ),
    _fault(
        "the AMI has no token of its task",
        "amis",
        "Amis.tag",
        drop_statement("TOKEN", "changed", "task"),
    ),
    _fault(
        "an import that ends between two links of a chain is not counted",
        "amis",
        "Amis.tag",
        returns("False"),
    ),
    _fault(
        "a link logs the progress of an import as its own",
        "image.waiting",
        "Wait._poll",
        call("get", "''"),
    ),
    _fault(
        "a rollback gives the AMI the token of another task",
        "amis",
        "Amis.record_task",
        drop_operand("TOKEN"),
    ),
    _fault("an AMI that is still used is deleted", "amis", "Amis._reason_to_retain", returns("''")),
    _fault(
        "a disk that was a snapshot is deleted with the AMI",
        "import_task.properties",
        "ImportTaskProperties.snapshots",
        returns("[]"),
    ),
    _fault(
        "an active task is not cancelled",
        "import_task.resource",
        "ImportTasks.delete",
        call("cancel", "None"),
    ),
    _fault(
        "a task that EC2 forgot is gone",
        "import_task.resource",
        "ImportTasks.get",
        drop_operand("_forgotten"),
    ),
    # the settings of an AMI
    _fault_of_settings(
        "settings do not wait until reads are up to date",
        "resource",
        "step",
        never("elapsed"),
    ),
    _fault_of_settings(
        "what a repeated step of settings has added existed before",
        "resource",
        "step",
        argument("change", 3, "settings.record(ami, properties, old).value"),
    ),
    _fault_of_settings(
        "an update of an AMI that is gone succeeds",
        "resource",
        "step",
        drop_operand("_is_rolling_back"),
    ),
    _fault_of_settings(
        "a rollback to an AMI that is gone fails", "resource", "step", always("may_pass")
    ),
    _fault_of_settings(
        "settings that were never set are undone when they cannot be read",
        "resource",
        "step",
        never("physical_id", "nothing_set"),
    ),
    _fault_of_settings(
        "the AMI of another stack is changed",
        "resource",
        "AmiSettings.record",
        never("stack_id"),
    ),
    _fault_of_settings(
        "launch permissions that existed before are not recorded",
        "resource",
        "AmiSettings.record",
        call("Record", "Record(digest_of_all(properties.permissions), frozenset(), deprecate_at)"),
    ),
    _fault_of_settings(
        "too many launch permissions are recorded",
        "resource",
        "AmiSettings.record",
        never("MAX_EXISTING"),
    ),
    _fault_of_settings(
        "the deprecation date of before is forgotten in an update",
        "resource",
        "AmiSettings.record",
        drop_statement("previous", "deprecate_at"),
    ),
    _fault_of_settings(
        "what an update no longer names stays",
        "resource",
        "AmiSettings.change",
        never("previous"),
    ),
    _fault_of_settings(
        "an event that changed nothing is undone",
        "resource",
        "AmiSettings.change",
        drop_operand("describes"),
    ),
    _fault_of_settings(
        "a date that an update no longer names stays",
        "resource",
        "AmiSettings.change",
        drop_statement("undone", "deprecate_at", "old"),
    ),
    _fault_of_settings(
        "the record of settings is not written",
        "resource",
        "AmiSettings.change",
        drop_statement("_tag", "tags", "ami"),
    ),
    _fault_of_settings(
        "the tag of settings stays",
        "resource",
        "AmiSettings.delete",
        drop_statement("untag"),
    ),
    _fault_of_settings(
        "a repeated delete undoes what another resource has taken over",
        "resource",
        "AmiSettings.delete",
        never("describes"),
    ),
    _fault_of_settings(
        "a construct with another id loses its launch permissions",
        "resource",
        "AmiSettings._undo",
        assign("shared", "frozenset()"),
    ),
    _fault_of_settings(
        "a construct with another id loses its deprecation date",
        "resource",
        "AmiSettings._undo",
        assign("takes_date", "False"),
    ),
    _fault_of_settings(
        "launch permissions that existed before are removed",
        "resource",
        "AmiSettings._undo",
        always("existing"),
    ),
    _fault_of_settings(
        "a deprecation date that a person set is undone",
        "resource",
        "AmiSettings._undo",
        drop_operand("deprecate_at", "ami"),
    ),
    _fault_of_settings(
        "a date that is over is not the same as another one",
        "resource",
        "_are_same",
        returns("first == second"),
    ),
    _fault_of_settings(
        "launch permissions that a person removed are recorded as existing",
        "resource",
        "AmiSettings.record",
        always("records"),
    ),
    _fault_of_settings(
        "launch permissions that another resource may have added belong to this one",
        "resource",
        "AmiSettings.record",
        never("records"),
    ),
    _fault_of_settings(
        "a deprecation date in the past is sent to EC2",
        "resource",
        "_effective",
        assign("soon", "when"),
    ),
    _fault_of_settings(
        "an AMI that settings share is retained", "record", "explains", returns("False")
    ),
    _fault_of_settings(
        "an AMI whose settings are retained is deleted",
        "record",
        "explains",
        drop_operand("is_retained"),
    ),
    _fault_of_settings(
        "an AMI that a person shares too is deleted", "record", "explains", returns("True")
    ),
    _fault_of_settings(
        "an AMI that was shared before its settings is deleted",
        "record",
        "explains",
        drop_operand("existing"),
    ),
    # the constructs
    _fault(
        "an image from an ARN is in the environment of the stack",
        "cdk_vm_import._existing_image",
        "ImageFromAttributes.__init__",
        drop_keyword("environment_from_arn"),
    ),
    _fault(
        "tags of an aspect are not checked on a task",
        "cdk_vm_import.vm_import_task",
        "VmImportTask.__init__",
        call("add_validation", "None"),
    ),
    _fault(
        "a task does not wait for the policies of its role",
        "cdk_vm_import.vm_import_task",
        "VmImportTask.__init__",
        call("wait_for_policies", "None"),
    ),
    _fault(
        "disks with the same file name are one asset",
        "cdk_vm_import.vm_disk",
        "_asset",
        argument("sha256", 0, "file.name.encode()"),
    ),
    _fault(
        "a request tag suffices to tag an image of another stack",
        "cdk_vm_import._policies",
        "",
        assign("_NEW_OR_OWN", "{'StringEquals': _REQUEST_TAG}"),
    ),
    _fault(
        "a VMDK need not be stream-optimized",
        "cdk_vm_import.disk_format",
        "_is_stream_optimized",
        returns("True"),
    ),
    _fault(
        "a task may have 22 disks", "cdk_vm_import._task_validation", "", assign("_MAX_DISKS", "22")
    ),
    _fault(
        "two disks may have one device",
        "cdk_vm_import._task_validation",
        "disks",
        never("is_unresolved", "count"),
    ),
    _fault(
        "VM Import may not attach licenses",
        "cdk_vm_import.vm_import_role",
        "VmImportRole._allow",
        drop_statement("_attaches_licenses"),
    ),
    _fault(
        "VM Import may not use the key of the AMI",
        "cdk_vm_import.vm_import_role",
        "VmImportRole._allow",
        never("encryption_key"),
    ),
    _fault(
        "the ARN of a license may not be a token",
        "cdk_vm_import._task_validation",
        "license_configurations",
        drop_operand("Token"),
    ),
    _fault(
        "a response that failed is not sent again", "contract", "", assign("RESPONSE_RETRIES", "0")
    ),
    _fault("a step that failed is not repeated", "contract", "", assign("STEP_RETRIES", "0")),
)
