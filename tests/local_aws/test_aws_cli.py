"""The AWS CLI, with the examples of its documentation.

Most tests run the entry point of the `aws` command in this process, because it starts faster. Some
run the command.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import uuid
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from awscli.clidriver import create_clidriver

from tests.local_aws.cli_examples import Example, differences, examples

if TYPE_CHECKING:
    from local_aws import LocalAws
    from tests.local_aws.account import Account

IMAGE_BUILDER = (
    "create-component", "create-distribution-configuration", "create-image-pipeline",
    "create-image-recipe", "create-infrastructure-configuration", "delete-component",
    "delete-image", "delete-image-pipeline", "delete-image-recipe",
    "delete-infrastructure-configuration", "get-component", "get-distribution-configuration",
    "get-image", "get-image-pipeline", "get-infrastructure-configuration",
    "list-component-build-versions", "list-components", "list-distribution-configurations",
    "list-image-build-versions", "list-image-recipes", "list-images",
    "list-infrastructure-configurations", "list-tags-for-resource", "tag-resource",
    "untag-resource", "update-distribution-configuration", "update-image-pipeline",
    "update-infrastructure-configuration",
)  # fmt: skip
EC2 = (
    "cancel-import-task", "create-tags", "delete-snapshot", "delete-tags", "deregister-image",
    "describe-images", "describe-import-image-tasks", "describe-snapshots", "import-image",
    "wait/image-available", "wait/image-exists", "wait/snapshot-completed",
)  # fmt: skip
BUILT = "ImportVmImage creates images without a recipe, so they have no parts of a pipeline"
DRIVERS = "EC2 shows it only for AMIs with the driver; nothing says which imported AMIs have it"
# The documented members that are not returned, and why.
EXPLAINED: dict[str, dict[str, str]] = {
    "imagebuilder/get-image 1": {
        "image.imageRecipe": BUILT,
        "image.infrastructureConfiguration": BUILT,
        "image.imageTestsConfiguration": BUILT,
    },
    "ec2/describe-images 1": {"Images.EnaSupport": DRIVERS, "Images.SriovNetSupport": DRIVERS},
}


@dataclass(frozen=True)
class Result:
    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> Any:
        """Return the output, as JSON if it is JSON."""
        text = self.stdout.strip()
        return json.loads(text) if text[:1] in {"{", "["} else text


@cache
def _models() -> Any:
    """Return the loader of the models, which needs most of the time of a command."""
    return create_clidriver().session.get_component("data_loader")


class Cli:
    """The AWS CLI with the credentials of a user."""

    def __init__(self, server: LocalAws, **credentials: str) -> None:
        # The package sets AWS_DATA_PATH, where its entry point finds its data.
        kept = {
            name: value
            for name, value in os.environ.items()
            if name == "AWS_DATA_PATH" or not name.startswith("AWS_")
        }
        self.environment = kept | server.environment | credentials

    def __call__(self, *arguments: str) -> Result:
        """Run the entry point of the command in this process."""
        stdout, stderr = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.environment, clear=True),
            redirect_stdout(stdout),
            redirect_stderr(stderr),
        ):
            driver = create_clidriver()
            driver.session.register_component("data_loader", _models())
            try:
                code = driver.main(list(arguments))
            except SystemExit as end:
                code = int(end.code or 0)
        return Result(code, stdout.getvalue(), stderr.getvalue())

    def run(self, *arguments: str) -> Result:
        """Run the command."""
        command = [str(Path(sys.executable).parent / "aws"), *arguments]
        ended = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        return Result(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def cli(aws: Account) -> Cli:
    return Cli(aws.server, AWS_ACCESS_KEY_ID=aws.account_id)


class Documented:
    """The resources that the examples name, except those that an example creates."""

    def __init__(self, aws: Account) -> None:
        self.aws = aws
        self.api: Any = aws.images
        self.tags = {"tags": {"KeyName": "KeyValue"}}

    def component(self) -> None:
        for name, version in (
            ("MyExampleComponent", "2019.12.02"),
            ("MyImportedComponent", "1.0.0"),
            ("component-name", "1.0.0"),
        ):
            self.api.create_component(
                name=name,
                semanticVersion=version,
                platform="Windows",
                description="d",
                changeDescription="Initial version.",
                data="phases: []",
                **self.tags,
            )

    def recipe(self) -> None:
        self.api.create_image_recipe(
            name="MyBasicRecipe",
            semanticVersion="2019.12.03",
            parentImage="ami-0123456789abcdef0",
            **self.tags,
        )

    def profile(self) -> None:
        for name in ("EC2InstanceProfileForImageBuilder", "EC2InstanceProfileForImageFactory"):
            self.aws.iam.create_instance_profile(InstanceProfileName=name)

    def infrastructure(self) -> None:
        self.profile()
        self.api.create_infrastructure_configuration(
            name="MyExampleInfrastructure",
            description="d",
            instanceTypes=["m5.large", "m5.xlarge"],
            instanceProfileName="EC2InstanceProfileForImageBuilder",
            securityGroupIds=["sg-a48c95ef"],
            subnetId="subnet-a48c95ef",
            logging={"s3Logs": {"s3BucketName": "bucket-name", "s3KeyPrefix": "path"}},
            keyPair="Name",
            terminateInstanceOnFailure=False,
            snsTopicArn="arn:aws:sns:us-east-1:123456789012:sns-name",
            **self.tags,
        )

    def distribution(self) -> None:
        ami = {
            "name": "Name {{imagebuilder:buildDate}}",
            "description": "d",
            "amiTags": {"KeyName": "{{ssm:parameter_name}}"},
            "launchPermission": {"userIds": ["123456789012"]},
        }
        self.api.create_distribution_configuration(
            name="MyExampleDistribution",
            description="d",
            distributions=[{"region": "us-east-1", "amiDistributionConfiguration": ami}],
            **self.tags,
        )

    def parts(self) -> None:
        self.recipe()
        self.infrastructure()
        self.distribution()

    def pipeline(self) -> None:
        self.parts()
        prefix = f"arn:aws:imagebuilder:us-east-1:{self.aws.account_id}"
        for name in ("MyWindows2016Pipeline", "my-example-pipeline"):
            self.api.create_image_pipeline(
                name=name,
                description="d",
                imageRecipeArn=f"{prefix}:image-recipe/mybasicrecipe/2019.12.03",
                infrastructureConfigurationArn=(
                    f"{prefix}:infrastructure-configuration/myexampleinfrastructure"
                ),
                distributionConfigurationArn=(
                    f"{prefix}:distribution-configuration/myexampledistribution"
                ),
                schedule={
                    "scheduleExpression": "cron(0 0 * * SUN)",
                    "pipelineExecutionStartCondition": "EXPRESSION_MATCH_ONLY",
                },
                **self.tags,
            )

    def image(self) -> None:
        task = self.aws.start(Description="d")
        for name, version in (("MyBasicRecipe", "2019.12.03"), ("my-example-image", "2019.12.02")):
            more = {"name": name, "semanticVersion": version, "description": "d", **self.tags}
            self.aws.import_image(task, **more)
        failing = self.aws.start()
        message = "ClientError: Unsupported kernel version"
        self.aws.server.fail_import(message, task_id=failing)
        self.aws.import_image(failing, name="MyBasicRecipe", semanticVersion="2019.12.03")
        self.aws.finish()

    def create(self, command: str) -> None:
        """Create what an example of Image Builder needs."""
        match command.removeprefix("imagebuilder/").split()[0].split("-"):
            case ["create", "image", "recipe"]:
                self.component()
            case ["create", "infrastructure", *_]:
                self.profile()
            case ["create", "image", "pipeline"]:
                self.parts()
            case ["create", *_]:
                return
            case [_, "component" | "components", *_]:
                self.component()
            case [_, "distribution", *_]:
                self.distribution()
            case [_, "infrastructure", *_]:
                self.infrastructure()
            case [_, "image", "recipe" | "recipes"]:
                self.recipe()
            case [_, "image", "pipeline"] | ["tag" | "untag" | "list", "resource" | "tags", *_]:
                self.pipeline()
            case _:
                self.image()


def with_real_names(aws: Account, text: str) -> str:
    """Return a command or a file of an example for the account and the Region of the test."""
    text = text.replace("us-west-2", "us-east-1")
    # The recipe's parent image is given with x in a form that the API does not allow.
    text = text.replace("xxxx.x.x", "x.x.x").replace('"KeyName: "', '"KeyName": "')
    return re.sub(r"(?<=:)123456789012(?=:)", aws.account_id, text)


def test_each_page_of_the_documentation_has_examples_and_each_difference_is_of_one() -> None:
    pages = [*(f"imagebuilder/{page}" for page in IMAGE_BUILDER), *(f"ec2/{page}" for page in EC2)]
    found = {page: examples(page) for page in pages}
    assert all(found.values())
    assert set(EXPLAINED) <= {example.name for page in pages for example in found[page]}


@pytest.mark.parametrize(
    ("documented", "returned", "different"),
    [
        ({"a": 1, "b": "x"}, {"a": 2.0, "b": "y", "c": []}, set()),
        ({"a": 1, "b": {"c": 1}}, {"b": {}}, {"a", "b.c"}),
        ({"a": 1, "b": True}, {"a": "1", "b": "true"}, {"a", "b"}),
        ({"a": [{"b": 1}, {"c": 1}]}, {"a": [{"c": 1}, {"b": 1}]}, set()),
        ({"a": [{"b": 1}]}, {"a": []}, {"a"}),
        ({"a": [{"b": 1}]}, {"a": [{"c": 1}]}, {"a.b"}),
    ],
)
def test_members_that_are_missing_or_of_another_type_are_differences(
    documented: object, returned: object, different: set[str]
) -> None:
    assert differences(documented, returned) == different


@pytest.mark.parametrize(
    "example",
    [example for page in IMAGE_BUILDER for example in examples(f"imagebuilder/{page}")],
    ids=lambda example: example.name,
)
def test_an_example_of_image_builder_returns_what_is_documented(
    aws: Account, cli: Cli, example: Example, tmp_path: Path
) -> None:
    Documented(aws).create(example.name)
    arguments = [with_real_names(aws, argument) for argument in example.command]
    for content in example.files:
        file = tmp_path / "input.json"
        file.write_text(with_real_names(aws, content))
        arguments[-1] = re.sub("^file:.*", f"file://{file}", arguments[-1])
    result = cli(*arguments)
    assert (result.code, result.stderr) == (0, "")
    documented = example.outputs[0] if example.outputs else ""
    assert differences(documented, result.output) == set(EXPLAINED.get(example.name, ()))


class ImportedDisk:
    """A completed import with the names of the examples of EC2, and a task that is active."""

    def __init__(self, aws: Account) -> None:
        self.aws = aws
        specification = {"ResourceType": "import-image-task", "Tags": []}
        task = aws.task(aws.start(Description="d", TagSpecifications=[specification]))
        aws.finish()
        task = aws.task(task["ImportTaskId"])
        self.completed = task["ImportTaskId"]
        self.ami, self.snapshot = task["ImageId"], task["SnapshotDetails"][0]["SnapshotId"]
        aws.ec2.create_tags(
            Resources=[self.ami, self.snapshot],
            Tags=[{"Key": "Type", "Value": "Custom"}, {"Key": "Stack", "Value": "prod"}],
        )
        self.active = aws.start()

    def command(self, example: Example) -> list[str]:
        """Return the command of an example with ids that exist."""
        names = {
            r"import-ami-\w+": self.active,
            r"(?<!import-)ami-\w+": self.ami,
            r"snap-\w+": self.snapshot,
            "my-import-bucket": self.aws.bucket,
            "vms/my-server-vm.ova": "disk.raw",
            "Format=ova": "Format=raw",
            "Values=pending": "Values=completed",
            "Values=archive": "Values=standard",
            "Values=049df61146c4d7901": "Values=vol-ffffffff",
            "012345678910": self.aws.account_id,
        }
        arguments = list(example.command)
        for pattern, name in names.items():
            arguments = [re.sub(pattern, name, argument) for argument in arguments]
        return arguments


@pytest.mark.parametrize(
    "example",
    [example for page in EC2 for example in examples(f"ec2/{page}")],
    ids=lambda example: example.name,
)
def test_an_example_of_ec2_returns_what_is_documented(
    aws: Account, cli: Cli, example: Example
) -> None:
    disk = ImportedDisk(aws)
    if example.name.startswith("ec2/delete-snapshot"):
        aws.ec2.deregister_image(ImageId=disk.ami)
    aws.server.advance(aws.server.knobs()["import_seconds"] * 0.2)  # the active task is converting
    command = disk.command(example)
    for documented in example.outputs or ("",):
        result = cli(*command)
        assert (result.code, result.stderr) == (0, "")
        if example.outputs:
            found = differences(documented, result.output)
            assert found == set(EXPLAINED.get(example.name, ()))
        command = [disk.completed if part == disk.active else part for part in command]


SILENT = ("create-tags", "delete-tags", "delete-snapshot", "wait")


@pytest.mark.parametrize("command", SILENT)
def test_a_command_that_is_documented_without_output_prints_nothing(
    aws: Account, cli: Cli, command: str
) -> None:
    page = next(page for page in EC2 if page.startswith(command))
    disk = ImportedDisk(aws)
    if command == "delete-snapshot":
        aws.ec2.deregister_image(ImageId=disk.ami)
    assert cli(*disk.command(examples(f"ec2/{page}")[0])) == Result(0, "", "")


def test_the_command_imports_a_disk_as_an_image(aws: Account, cli: Cli, tmp_path: Path) -> None:
    """Run the commands of the user guides of VM Import and Image Builder."""
    aws.make_role()
    aws.put_disk()
    place = {"S3Bucket": aws.bucket, "S3Key": "disk.raw"}
    containers = [{"Description": "disk", "Format": "raw", "UserBucket": place}]
    file = tmp_path / "containers.json"
    file.write_text(json.dumps(containers))
    tags = "ResourceType=import-image-task,Tags=[{Key=stage,Value=test}]"
    started = cli.run(
        *("ec2", "import-image", "--description", "My server VM", "--architecture", "x86_64"),
        *("--disk-containers", f"file://{file}", "--tag-specifications", tags),
    ).output
    task = started["ImportTaskId"]
    assert (started["Status"], started["StatusMessage"]) == ("active", "pending")
    assert started["Tags"] == [{"Key": "stage", "Value": "test"}]

    image = cli.run(
        *("imagebuilder", "import-vm-image", "--name", "golden", "--semantic-version", "1.0.0"),
        *("--platform", "Linux", "--vm-import-task-id", task, "--tags", "stage=test"),
    ).output
    assert set(image) == {"requestId", "imageArn", "clientToken"}
    aws.finish()

    arn = ("--image-build-version-arn", image["imageArn"])
    query = ("--query", "image.outputResources.amis[0].image", "--output", "text")
    ami = cli.run("imagebuilder", "get-image", *arn, *query).output
    assert ami == aws.task(task)["ImageId"]


def test_the_command_cancels_an_image(aws: Account, cli: Cli) -> None:
    arn = aws.import_image()
    cancelled = cli.run(
        "imagebuilder", "cancel-image-creation", "--image-build-version-arn", arn
    ).output
    assert set(cancelled) == {"requestId", "imageBuildVersionArn", "clientToken"}
    aws.server.advance(21)
    assert aws.status(arn) == "CANCELLED"


# --- pages ---


def test_max_items_and_starting_token_continue_a_list(aws: Account, cli: Cli) -> None:
    task = aws.start()
    arns = [aws.import_image(task) for _ in range(5)]
    command = ("imagebuilder", "list-image-build-versions", "--page-size", "2")
    before = len(aws.server.calls("ListImageBuildVersions"))
    first = cli(*command, "--max-items", "3").output
    calls = aws.server.calls("ListImageBuildVersions")[before:]
    assert [call["request"]["maxResults"] for call in calls] == [2, 2]
    rest = cli(*command, "--starting-token", first["NextToken"]).output
    assert "NextToken" not in rest
    listed = [build["arn"] for page in (first, rest) for build in page["imageSummaryList"]]
    assert (len(first["imageSummaryList"]), listed) == (3, arns[::-1])


def test_no_paginate_returns_the_first_page_and_its_token(aws: Account, cli: Cli) -> None:
    tasks = [aws.start() for _ in range(3)]
    command = ("ec2", "describe-import-image-tasks")
    page = cli(*command, "--no-paginate", "--max-results", "2").output
    assert [task["ImportTaskId"] for task in page["ImportImageTasks"]] == tasks[:0:-1]
    rest = cli(*command, "--starting-token", page["NextToken"]).output
    assert [task["ImportTaskId"] for task in rest["ImportImageTasks"]] == tasks[:1]


def test_a_query_applies_to_all_pages(aws: Account, cli: Cli) -> None:
    task = aws.start()
    arns = [aws.import_image(task) for _ in range(3)]
    query = ("--query", "imageSummaryList[].arn", "--output", "text", "--page-size", "1")
    listed = cli("imagebuilder", "list-image-build-versions", *query)
    assert listed.stdout.split() == arns[::-1]


# --- errors ---

UNKNOWN_IMAGE = "arn:aws:imagebuilder:us-east-1:123456789012:image/golden/1.0.0/1"


@pytest.mark.parametrize(
    ("command", "code", "operation"),
    [
        (
            f"imagebuilder get-image --image-build-version-arn {UNKNOWN_IMAGE}",
            "ResourceNotFoundException",
            "GetImage",
        ),
        (
            (
                "imagebuilder import-vm-image --name golden --semantic-version 1.0 "
                "--platform Linux --vm-import-task-id import-ami-0123456789abcdef0"
            ),
            "ClientException",
            "ImportVmImage",
        ),
        (
            "imagebuilder list-images --starting-token other",
            "InvalidPaginationTokenException",
            "ListImages",
        ),
        (
            "ec2 describe-import-image-tasks --import-task-ids import-ami-0123456789abcdef0",
            "InvalidConversionTaskId.Malformed",
            "DescribeImportImageTasks",
        ),
        (
            "ec2 cancel-import-task --import-task-id import-ami-0123456789abcdef0",
            "InvalidConversionTaskId.Malformed",
            "CancelImportTask",
        ),
        (
            "ec2 import-image --boot-mode bios --disk-containers Format=raw,Url=s3://b/k",
            "InvalidParameterValue",
            "ImportImage",
        ),
        ("ec2 import-image --dry-run", "MissingParameter", "ImportImage"),
        (
            "ec2 describe-images --image-ids ami-0123456789abcdeff",
            "InvalidAMIID.NotFound",
            "DescribeImages",
        ),
        (
            "ec2 deregister-image --image-id ami-0123456789abcdeff",
            "InvalidAMIID.NotFound",
            "DeregisterImage",
        ),
        (
            "ec2 delete-snapshot --snapshot-id snap-0123456789abcdef0",
            "InvalidSnapshot.NotFound",
            "DeleteSnapshot",
        ),
        ("ec2 describe-snapshots --dry-run", "DryRunOperation", "DescribeSnapshots"),
    ],
)
def test_the_cli_reports_code_and_operation_of_an_error(
    cli: Cli, command: str, code: str, operation: str
) -> None:
    result = cli(*command.split())
    start = f"An error occurred ({code}) when calling the {operation} operation: "
    assert (result.code, result.stdout) == (255, "")
    assert result.stderr.strip().startswith(start)


def test_the_command_exits_with_255_for_an_error(cli: Cli) -> None:
    result = cli.run("imagebuilder", "get-image", "--image-build-version-arn", UNKNOWN_IMAGE)
    start = "An error occurred (ResourceNotFoundException) when calling the GetImage operation: "
    assert (result.code, result.stdout) == (255, "")
    assert result.stderr.strip().startswith(start)


def test_the_cli_refuses_an_invalid_value_before_the_call(aws: Account, cli: Cli) -> None:
    before = aws.server.calls("ListImageBuildVersions")
    result = cli("imagebuilder", "list-image-build-versions", "--max-results", "0")
    assert (result.code, aws.server.calls("ListImageBuildVersions")) == (255, before)
    assert "Parameter validation failed" in result.stderr


def test_a_wait_fails_for_an_unknown_ami(cli: Cli) -> None:
    result = cli("ec2", "wait", "image-available", "--image-ids", "ami-0123456789abcdeff")
    assert result.code == 255
    assert "Waiter ImageAvailable failed" in result.stderr
    assert "InvalidAMIID.NotFound" in result.stderr


@pytest.fixture
def denied(enforcing: LocalAws) -> Cli:
    """Return the CLI of a user without permissions."""
    admin: Any = enforcing.session().client("iam", aws_access_key_id="660000000000")
    name = f"user-{uuid.uuid4()}"
    admin.create_user(UserName=name)
    key = admin.create_access_key(UserName=name)["AccessKey"]
    return Cli(
        enforcing,
        AWS_ACCESS_KEY_ID=key["AccessKeyId"],
        AWS_SECRET_ACCESS_KEY=key["SecretAccessKey"],
    )


@pytest.mark.parametrize(
    ("command", "code", "operation"),
    [
        ("imagebuilder list-images", "AccessDeniedException", "ListImages"),
        ("imagebuilder list-image-recipes", "AccessDeniedException", "ListImageRecipes"),
        (
            (
                "imagebuilder list-component-build-versions --component-version-arn "
                "arn:aws:imagebuilder:us-east-1:660000000000:component/hello/1.0.0"
            ),
            "AccessDeniedException",
            "ListComponentBuildVersions",
        ),
        ("ec2 describe-import-image-tasks", "UnauthorizedOperation", "DescribeImportImageTasks"),
        ("ec2 describe-images", "UnauthorizedOperation", "DescribeImages"),
        ("ec2 describe-snapshots", "UnauthorizedOperation", "DescribeSnapshots"),
    ],
)
def test_the_cli_reports_which_action_is_denied(
    denied: Cli, command: str, code: str, operation: str
) -> None:
    result = denied(*command.split())
    service = command.partition(" ")[0]
    assert result.code == 255
    assert f"({code}) when calling the {operation} operation: " in result.stderr
    assert f"is not authorized to perform: {service}:{operation} on resource: " in result.stderr
