"""The state machine that runs each event of CloudFormation to its end."""

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct, IConstruct

from cdk_vm_import import _policies
from cdk_vm_import._handler import contract


class EventStateMachine(Construct):
    """Calls the function until an event needs no more steps.

    Each event of CloudFormation is one execution, and the execution's name identifies the event.
    If Lambda delivers an event twice, the second delivery finds the execution and does nothing.
    The function receives the execution's data, returns them changed, and says in them how many
    seconds to wait before the next step. 0 seconds end the execution.
    """

    def __init__(  # noqa: PLR0913 - flat arguments, as CDK's own
        self,
        scope: Construct,
        construct_id: str,
        *,
        function: lambda_.IFunction,
        encryption_key: kms.IKey | None,
        tracing: bool = False,
        log_retention: logs.RetentionDays | None = None,
        dependencies: Sequence[IConstruct] = (),
    ) -> None:
        """Create the state machine and its role.

        Args:
            scope: The construct to create this one in.
            construct_id: The id of this construct in the scope.
            function: The function that runs a step.
            encryption_key: Key that encrypts the executions. None: a key that AWS owns.
            tracing: Whether X-Ray traces the executions.
            log_retention: How long the history of the executions, without their data, is logged.
                None: not at all.
            dependencies: Other constructs that the first event needs. Default: none.
        """
        super().__init__(scope, construct_id)
        # The policy of the function's role names the state machine. A name that CloudFormation
        # generates would make a circular dependency: state machine, function, role. The UUID of
        # the stack is part of the name because an account may have the same app twice.
        stack_uuid = cdk.Fn.select(2, cdk.Fn.split("/", Aws.STACK_ID))
        name = f"vm-import-{self.node.addr[-8:]}-{stack_uuid}"
        states = f"arn:{Aws.PARTITION}:states:{Aws.REGION}:{Aws.ACCOUNT_ID}"
        self.arn_by_name = f"{states}:stateMachine:{name}"
        self.executions_arn = f"{states}:execution:{name}:*"
        statements = [_policies.invoke(function)]
        if encryption_key:
            statements.append(
                _policies.encrypt_executions(encryption_key, self.arn_by_name, "EncryptExecutions")
            )
        if tracing:
            statements.append(_policies.send_traces(by_rules=True))
        log_group = None
        if log_retention:
            statements.append(_policies.deliver_logs())
            if encryption_key:
                statements.append(_policies.encrypt_delivered_logs(encryption_key))
            log_group = logs.LogGroup(
                self,
                "LogGroup",
                # For other names, Step Functions adds to a resource policy of limited size.
                # https://docs.aws.amazon.com/step-functions/latest/dg/bp-cwl.html
                log_group_name=f"/aws/vendedlogs/states/{name}",
                retention=log_retention,
                encryption_key=encryption_key,
                removal_policy=cdk.RemovalPolicy.DESTROY,
            )
        role = iam.Role(
            self,
            "Role",
            description="Permissions of the state machine that runs events of imported VM images",
            assumed_by=iam.ServicePrincipal(
                "states.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID},
                    "ArnEquals": {"aws:SourceArn": self.arn_by_name},
                },
            ),
            inline_policies={"RunEvents": iam.PolicyDocument(statements=statements)},
        )
        self._machine = sfn.CfnStateMachine(
            self,
            "Resource",
            state_machine_name=name,
            role_arn=role.role_arn,
            definition_string=cdk.Stack.of(self).to_json_string(_definition(function)),
            encryption_configuration=sfn.CfnStateMachine.EncryptionConfigurationProperty(
                type="CUSTOMER_MANAGED_KMS_KEY", kms_key_id=encryption_key.key_arn
            )
            if encryption_key
            else None,
            tracing_configuration=sfn.CfnStateMachine.TracingConfigurationProperty(enabled=True)
            if tracing
            else None,
            logging_configuration=_logging(log_group) if log_group else None,
        )

        # Each custom resource refers to the state machine. So this one dependency lets all of them
        # wait for what they do not refer to, such as the maximum age of events.
        self._machine.node.add_dependency(function, *dependencies)

    @property
    def arn(self) -> str:
        """ARN of the state machine. A resource that uses it depends on the state machine."""
        return self._machine.ref


def _logging(log_group: logs.ILogGroup) -> sfn.CfnStateMachine.LoggingConfigurationProperty:
    return sfn.CfnStateMachine.LoggingConfigurationProperty(
        level="ALL",
        # The data contain the signed ResponseURL.
        include_execution_data=False,
        destinations=[
            sfn.CfnStateMachine.LogDestinationProperty(
                cloud_watch_logs_log_group=sfn.CfnStateMachine.CloudWatchLogsLogGroupProperty(
                    log_group_arn=log_group.log_group_arn
                )
            )
        ],
    )


def _definition(function: lambda_.IFunction) -> dict[str, object]:
    seconds = f"$.{contract.Step.SECONDS}"
    return {
        "StartAt": "Step",
        "TimeoutSeconds": contract.MAX_EXECUTION,
        "States": {
            "Step": {
                "Type": "Task",
                "Resource": f"arn:{Aws.PARTITION}:states:::lambda:invoke",
                "Parameters": {"FunctionName": function.function_arn, "Payload.$": "$"},
                "OutputPath": "$.Payload",
                "Retry": [
                    # The function itself retries the response for most of its 15 minutes. If
                    # ResponseURL accepts nothing for three times as long, it has expired.
                    {
                        "ErrorEquals": [contract.UNDELIVERED_RESPONSE],
                        "IntervalSeconds": contract.RESPONSE_RETRY_SECONDS,
                        "MaxAttempts": contract.RESPONSE_RETRIES,
                        "BackoffRate": 1,
                    },
                    # Any failure of Lambda. FULL jitter halves the delays on average, so the
                    # retries go on for about 73 minutes, and for over an hour with a probability
                    # of 99.9 %. The function itself ends events whose time is over.
                    {
                        "ErrorEquals": ["States.ALL"],
                        "IntervalSeconds": 2,
                        "MaxAttempts": contract.STEP_RETRIES,
                        "BackoffRate": 2,
                        "MaxDelaySeconds": 60,
                        "JitterStrategy": "FULL",
                    },
                ],
                "Next": "Done?",
            },
            "Done?": {
                "Type": "Choice",
                "Choices": [{"Variable": seconds, "NumericGreaterThan": 0, "Next": "Wait"}],
                "Default": "Done",
            },
            "Wait": {"Type": "Wait", "SecondsPath": seconds, "Next": "Step"},
            "Done": {"Type": "Succeed"},
        },
    }
