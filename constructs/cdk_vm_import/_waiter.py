"""The state machine that each event goes through, once, and that waits for images."""

import aws_cdk as cdk
from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

# The longest wait, and as long again as CloudFormation waits for a deletion: then whatever was
# waited for has no one left who waits.
_LONGEST_EXECUTION = cdk.Duration.hours(13)


class Waiter(Construct):
    """Calls the function until it says that nothing is left to wait for.

    One execution an event of CloudFormation, with its name: what Lambda delivers again, however
    late, finds it. Its input is the event, and each answer of the
    function takes the input's place: the event, what was seen so far, and the seconds until the
    next call; 0 ends it.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        function: lambda_.IFunction,
        encryption_key: kms.IKey | None,
    ) -> None:
        """Make the state machine and its role."""
        super().__init__(scope, construct_id)
        # A name of our own, so that the function's role can name it: the machine knows the
        # function, the function its role, and the circle would be closed. The stack's own id is
        # in it, because one account may hold the same app twice.
        stack_uuid = cdk.Fn.select(2, cdk.Fn.split("/", Aws.STACK_ID))
        name = f"vm-import-{self.node.addr[-8:]}-{stack_uuid}"
        states = f"arn:{Aws.PARTITION}:states:{Aws.REGION}:{Aws.ACCOUNT_ID}"
        self.arn_by_name = f"{states}:stateMachine:{name}"
        self.executions_arn = f"{states}:execution:{name}:*"
        statements = [
            iam.PolicyStatement(
                sid="CallFunction",
                actions=["lambda:InvokeFunction"],
                resources=[function.function_arn],
            )
        ]
        if encryption_key:
            statements.append(self._may_use(encryption_key))
        role = iam.Role(
            self,
            "Role",
            description="What the wait for imported EC2 Image Builder images may do",
            assumed_by=iam.ServicePrincipal(
                "states.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID},
                    "ArnEquals": {"aws:SourceArn": self.arn_by_name},
                },
            ),
            inline_policies={"Wait": iam.PolicyDocument(statements=statements)},
        )
        # No logging: the executions' data hold the signed ResponseURL.
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
        )

    @property
    def arn(self) -> str:
        """ARN of the state machine; who uses it depends on the machine."""
        return self._machine.ref

    def _may_use(self, key: kms.IKey) -> iam.PolicyStatement:
        # https://docs.aws.amazon.com/step-functions/latest/dg/encryption-at-rest.html
        context = {"kms:EncryptionContext:aws:states:stateMachineArn": self.arn_by_name}
        return iam.PolicyStatement(
            sid="EncryptExecutions",
            actions=["kms:Decrypt", "kms:GenerateDataKey"],
            resources=[key.key_arn],
            conditions={"StringEquals": context},
        )


def _definition(function: lambda_.IFunction) -> dict[str, object]:
    return {
        "StartAt": "Step",
        "TimeoutSeconds": _LONGEST_EXECUTION.to_seconds(),
        "States": {
            "Step": {
                "Type": "Task",
                "Resource": f"arn:{Aws.PARTITION}:states:::lambda:invoke",
                "Parameters": {"FunctionName": function.function_arn, "Payload.$": "$"},
                "OutputPath": "$.Payload",
                "Retry": [
                    # The function tried for 15 minutes; a URL that takes nothing has expired.
                    {
                        "ErrorEquals": ["UndeliveredAnswerError"],
                        "IntervalSeconds": 60,
                        "MaxAttempts": 2,
                        "BackoffRate": 1,
                    },
                    # Whatever is wrong with Lambda. An hour's outage is waited out; the function
                    # itself says when there is nothing left to wait for.
                    {
                        "ErrorEquals": ["States.ALL"],
                        "IntervalSeconds": 2,
                        "MaxAttempts": 64,
                        "BackoffRate": 2,
                        "MaxDelaySeconds": 60,
                        "JitterStrategy": "FULL",
                    },
                ],
                "Next": "Done?",
            },
            "Done?": {
                "Type": "Choice",
                "Choices": [
                    {
                        "Variable": "$.Waiting.Seconds",
                        "NumericGreaterThan": 0,
                        "Next": "Wait",
                    }
                ],
                "Default": "Done",
            },
            "Wait": {"Type": "Wait", "SecondsPath": "$.Waiting.Seconds", "Next": "Step"},
            "Done": {"Type": "Succeed"},
        },
    }
