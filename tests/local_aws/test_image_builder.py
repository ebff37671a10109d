"""Images of Image Builder: imports, client tokens, deletion, cancellation, tags and lists."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local_aws.account import Account, refused


def version_of(arn: str) -> str:
    return arn.rpartition("/")[0]


def test_an_import_returns_the_build_arn_the_client_token_and_the_request_id(aws: Account) -> None:
    result = aws.images.import_vm_image(
        name="Golden Image",
        semanticVersion="1.2.3",
        platform="Linux",
        vmImportTaskId=aws.start(),
        clientToken="token",
    )
    arn = f"arn:aws:imagebuilder:us-east-1:{aws.account_id}:image/golden-image/1.2.3/1"
    assert (result["imageArn"], result["clientToken"]) == (arn, "token")
    assert result["requestId"] == result["ResponseMetadata"]["RequestId"]


def test_an_image_is_pending_until_its_task_completes(aws: Account) -> None:
    task_id = aws.start()
    arn = aws.import_image(task_id, osVersion="RHEL 9", description="d", tags={"a": "b"})
    image = aws.image(arn)
    assert image.pop("dateCreated").endswith("Z")
    assert image == {
        "arn": arn,
        "type": "AMI",
        "name": "golden",
        "version": "1.0.0/1",
        "platform": "Linux",
        "osVersion": "RHEL 9",
        "state": {"status": "PENDING"},
        "outputResources": {"amis": []},
        "tags": {"a": "b"},
        "buildType": "IMPORT",
        "imageSource": "IMPORTED",
    }
    aws.finish()
    image = aws.image(arn)
    assert image["state"] == {"status": "AVAILABLE"}
    assert image["outputResources"]["amis"] == [
        {
            "region": "us-east-1",
            "image": aws.task(task_id)["ImageId"],
            "name": task_id,
            "description": "d",
            "accountId": aws.account_id,
        }
    ]


def test_a_task_that_is_already_completed_makes_the_image_available_soon(aws: Account) -> None:
    task_id = aws.start()
    aws.finish()
    arn = aws.import_image(task_id)
    assert aws.status(arn) == "PENDING"
    aws.server.advance(16)
    assert aws.status(arn) == "AVAILABLE"


def test_a_task_that_fails_makes_the_image_fail_with_its_message(aws: Account) -> None:
    arn = aws.import_image(aws.start(b"no disk"))
    aws.finish()
    message = "ClientError: No valid partitions. Not a valid volume."
    assert aws.image(arn)["state"] == {"status": "FAILED", "reason": message}


@pytest.mark.parametrize("wait", [0, 3600], ids=["deleting", "deleted"])
def test_a_task_that_has_already_failed_makes_the_image_fail(aws: Account, wait: int) -> None:
    task_id = aws.start()
    aws.ec2.cancel_import_task(ImportTaskId=task_id)
    aws.server.advance(wait)
    arn = aws.import_image(task_id)
    aws.server.advance(16)
    assert aws.image(arn)["state"] == {"status": "FAILED", "reason": "Cancelled by user"}


def test_a_failed_task_is_refused_or_its_image_has_no_reason(aws: Account) -> None:
    task_id = aws.start()
    arn = aws.import_image(task_id)
    aws.server.knobs(failed_task="fail_without_reason")
    aws.ec2.cancel_import_task(ImportTaskId=task_id)
    aws.server.advance(16)
    assert aws.image(arn)["state"] == {"status": "FAILED"}
    aws.server.knobs(failed_task="refuse")
    refusal = refused(lambda: aws.import_image(task_id))
    assert refusal[:2] == ("ClientException", 400)
    assert f"{task_id} is deleting" in refusal[2]


def test_an_image_shows_the_name_of_its_ami(aws: Account) -> None:
    aws.server.knobs(imported_ami_name="other")
    arn = aws.import_image()
    aws.finish()
    (ami,) = aws.ec2.describe_images(Owners=["self"])["Images"]
    assert ami["Name"] == f"import-{ami['ImageId']}"
    assert aws.image(arn)["outputResources"]["amis"][0]["name"] == ami["Name"]


def test_an_unknown_task_is_refused_or_makes_the_image_fail(aws: Account) -> None:
    refusal = refused(lambda: aws.import_image("import-ami-0123456789abcdef0"))
    assert refusal[:2] == ("ClientException", 400)
    aws.server.knobs(unknown_task="fail")
    arn = aws.import_image("import-ami-0123456789abcdef0")
    aws.server.advance(16)
    assert aws.status(arn) == "FAILED"


def test_build_numbers_increase_and_are_never_reused(aws: Account) -> None:
    task_id = aws.start()
    aws.finish()
    arns = [aws.import_image(task_id), aws.import_image(task_id)]
    aws.server.advance(16)
    aws.images.delete_image(imageBuildVersionArn=arns[1])
    arns.append(aws.import_image(task_id))
    arns.append(aws.import_image(task_id, semanticVersion="1.0.1"))
    numbers = [arn.split("/", 2)[2] for arn in arns]
    assert numbers == ["1.0.0/1", "1.0.0/2", "1.0.0/3", "1.0.1/1"]


def test_build_numbers_of_deleted_images_can_be_used_again(aws: Account) -> None:
    aws.server.knobs(build_numbers="reuse")
    task_id = aws.start()
    aws.finish()
    arns = [aws.import_image(task_id), aws.import_image(task_id)]
    aws.server.advance(16)
    aws.images.delete_image(imageBuildVersionArn=arns[1])
    assert aws.import_image(task_id) == arns[1]
    aws.images.delete_image(imageBuildVersionArn=arns[0])
    assert aws.import_image(task_id).endswith("/3")


def test_names_that_differ_in_case_spaces_or_underscores_are_one_image(aws: Account) -> None:
    task_id = aws.start()
    names = ["Dev Box_A", "dev-box-a", "DEV_BOX A"]
    arns = [aws.import_image(task_id, name=name) for name in names]
    assert [arn.split("/", 1)[1] for arn in arns] == [
        f"dev-box-a/1.0.0/{build}" for build in (1, 2, 3)
    ]
    assert [aws.image(arn)["name"] for arn in arns] == names


@pytest.mark.parametrize(
    "more",
    [
        {"name": "ab"},
        {"name": "a.b.c"},
        {"name": "x" * 129},
        {"semanticVersion": "1.0"},
        {"semanticVersion": "1.0.1073741824"},
        {"semanticVersion": "1.0." + "9" * 5000},
        {"platform": "BeOS"},
        {"description": "x" * 1025},
        {"clientToken": "x" * 65},
        {"tags": {"aws:a": "b"}},
        {"tags": {"a": "x" * 257}},
        {"tags": {str(number): "" for number in range(51)}},
        {"loggingConfiguration": {"logGroupName": "/aws/lambda/x"}},
        {"loggingConfiguration": {"logGroupName": "/aws/imagebuilder/x y"}},
    ],
    ids=str,
)
def test_an_invalid_import_is_a_client_exception(aws: Account, more: dict[str, Any]) -> None:
    task_id = aws.start()  # or the task would be the reason
    assert refused(lambda: aws.import_image(task_id, **more))[:2] == (
        "ClientException",
        400,
    )
    assert aws.images.list_image_build_versions()["imageSummaryList"] == []


@pytest.mark.parametrize("more", [{"name": "ab"}, {"semanticVersion": "1.0"}], ids=str)
def test_an_invalid_value_can_be_an_invalid_parameter_value(
    aws: Account, more: dict[str, Any]
) -> None:
    aws.server.knobs(invalid_value_error="InvalidParameterValueException")
    code, status, message = refused(lambda: aws.import_image("import-ami-0", **more))
    assert (code, status) == ("InvalidParameterValueException", 400)
    assert f"parameter '{next(iter(more))}' is not valid" in message


def test_an_image_shows_its_log_group(aws: Account) -> None:
    logging = {"logGroupName": "/aws/imagebuilder/golden"}
    assert (
        aws.image(aws.import_image(loggingConfiguration=logging))["loggingConfiguration"] == logging
    )


def test_a_used_client_token_returns_the_first_response(aws: Account) -> None:
    task_id = aws.start()
    first = aws.import_image(task_id, clientToken="token")
    assert aws.import_image(task_id, clientToken="token") == first
    assert len(aws.images.list_image_build_versions()["imageSummaryList"]) == 1


def test_a_used_client_token_returns_the_arn_of_a_deleted_image(aws: Account) -> None:
    task_id = aws.start()
    first = aws.import_image(task_id, clientToken="token")
    aws.finish()
    aws.images.delete_image(imageBuildVersionArn=first)
    assert aws.import_image(task_id, clientToken="token") == first
    assert refused(lambda: aws.image(first))[0] == "ResourceNotFoundException"
    aws.server.knobs(idempotency_of_unusable_image="import")
    assert aws.import_image(task_id, clientToken="token") == f"{version_of(first)}/2"


def test_a_client_token_expires(aws: Account) -> None:
    task_id = aws.start()
    first = aws.import_image(task_id, clientToken="token")
    aws.server.advance(86401)
    assert aws.import_image(task_id, clientToken="token") == f"{version_of(first)}/2"


def test_a_client_token_with_other_parameters_is_a_mismatch(aws: Account) -> None:
    task_id = aws.start()
    first = aws.import_image(task_id, clientToken="token")
    refusal = refused(lambda: aws.import_image(task_id, clientToken="token", description="d"))
    assert refusal[:2] == ("IdempotentParameterMismatchException", 400)
    aws.server.knobs(idempotency_mismatch="replay")
    assert aws.import_image(task_id, clientToken="token", description="d") == first


def test_operations_do_not_share_client_tokens(aws: Account) -> None:
    recipe: Any = {"name": "recipe", "semanticVersion": "1.0.0"}
    image = aws.import_image(clientToken="token")

    made = aws.images.create_image_recipe(parentImage=image, **recipe, clientToken="token")

    assert made["imageRecipeArn"].endswith(":image-recipe/recipe/1.0.0")


def test_a_version_or_wildcard_arn_finds_only_available_builds(aws: Account) -> None:
    task_id = aws.start()
    first = aws.import_image(task_id)
    version = version_of(first)
    series = version_of(version)
    assert refused(lambda: aws.image(version))[:2] == ("ResourceNotFoundException", 404)
    aws.finish()
    second = aws.import_image(task_id)
    newer = aws.import_image(task_id, semanticVersion="1.10.0")
    assert aws.image(version)["arn"] == first
    aws.finish()
    assert aws.image(version)["arn"] == second
    assert aws.image(f"{series}/1.0.x")["arn"] == second
    assert aws.image(f"{series}/x.x.x")["arn"] == newer
    assert refused(lambda: aws.image(f"{series}/2.x.x"))[0] == "ResourceNotFoundException"


@pytest.mark.parametrize("operation", ["get_image", "delete_image", "cancel_image_creation"])
def test_an_unknown_image_is_not_found(aws: Account, operation: str) -> None:
    arn = f"arn:aws:imagebuilder:us-east-1:{aws.account_id}:image/golden/1.0.0/1"
    call = getattr(aws.images, operation)
    assert refused(lambda: call(imageBuildVersionArn=arn))[:2] == (
        "ResourceNotFoundException",
        404,
    )


def test_deleting_an_image_retains_ami_and_snapshots(aws: Account) -> None:
    arn = aws.import_image()
    aws.finish()
    assert aws.images.delete_image(imageBuildVersionArn=arn)["imageBuildVersionArn"] == arn
    assert refused(lambda: aws.image(arn))[0] == "ResourceNotFoundException"
    assert len(aws.ec2.describe_images(Owners=["self"])["Images"]) == 1
    assert len(aws.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) == 1


def test_a_running_image_cannot_be_deleted(aws: Account) -> None:
    arn = aws.import_image()
    message = f"The resource ARN '{arn}' has other resources depended on it."
    assert refused(lambda: aws.images.delete_image(imageBuildVersionArn=arn)) == (
        "ResourceDependencyException",
        400,
        f"Resource dependency error: {message}",
    )


def test_only_a_build_arn_can_be_deleted(aws: Account) -> None:
    arn = version_of(aws.import_image())
    refusal = refused(lambda: aws.images.delete_image(imageBuildVersionArn=arn))
    assert refusal[:2] == ("InvalidRequestException", 400)


def test_a_cancelled_image_becomes_cancelled_after_a_while(aws: Account) -> None:
    arn = aws.import_image()
    result = aws.images.cancel_image_creation(imageBuildVersionArn=arn, clientToken="c")
    assert (result["imageBuildVersionArn"], result["clientToken"]) == (arn, "c")
    aws.images.cancel_image_creation(imageBuildVersionArn=arn, clientToken="d")
    assert aws.status(arn) == "PENDING"
    refusal = refused(lambda: aws.images.delete_image(imageBuildVersionArn=arn))
    assert refusal[0] == "ResourceDependencyException"
    aws.server.advance(21)
    assert aws.status(arn) == "CANCELLED"
    aws.finish()
    assert aws.status(arn) == "CANCELLED"
    aws.images.delete_image(imageBuildVersionArn=arn)


def test_an_image_that_is_being_cancelled_never_becomes_available(aws: Account) -> None:
    aws.server.knobs(cancel_seconds=7200)
    arn = aws.import_image()
    aws.cancel(arn)
    aws.finish()
    assert aws.status(arn) == "PENDING"
    aws.server.advance(3601)
    assert aws.status(arn) == "CANCELLED"


def test_the_same_token_cancels_an_image_once(aws: Account) -> None:
    arn = aws.import_image()
    aws.cancel(arn)
    aws.server.advance(21)
    assert aws.status(arn) == "CANCELLED"

    aws.cancel(arn)  # returns the first response

    other = aws.import_image(name="other")
    assert refused(lambda: aws.cancel(other))[0] == "IdempotentParameterMismatchException"
    aws.images.cancel_image_creation(imageBuildVersionArn=other, clientToken="other")


def test_cancelling_an_import_is_refused_if_the_knob_says_so(aws: Account) -> None:
    aws.server.knobs(cancel_import="refuse")
    arn = aws.import_image()
    refusal = refused(lambda: aws.cancel(arn))
    assert refusal[:2] == ("InvalidRequestException", 400)
    aws.finish()
    assert aws.status(arn) == "AVAILABLE"


@pytest.mark.parametrize(
    "code",
    ["InvalidRequestException", "ResourceInUseException", "InvalidParameterValueException"],
)
def test_an_image_that_has_ended_cannot_be_cancelled(aws: Account, code: str) -> None:
    aws.server.knobs(cancel_terminal_error=code)
    arn = aws.import_image()
    aws.finish()
    refusal = refused(lambda: aws.cancel(arn))
    assert refusal[:2] == (code, 400)


def test_tags_can_be_added_read_and_removed(aws: Account) -> None:
    arn = aws.import_image(tags={"a": "1"})
    aws.images.tag_resource(resourceArn=arn, tags={"a": "2", "b": "x"})
    assert aws.images.list_tags_for_resource(resourceArn=arn)["tags"] == {"a": "2", "b": "x"}
    assert aws.image(arn)["tags"] == {"a": "2", "b": "x"}
    aws.images.untag_resource(resourceArn=arn, tagKeys=["absent", "a"])
    assert aws.images.list_tags_for_resource(resourceArn=arn)["tags"] == {"b": "x"}


def test_a_resource_without_tags_shows_empty_tags(aws: Account) -> None:
    arn = aws.import_image(tags={"a": "1"})
    aws.images.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert aws.image(arn)["tags"] == {}
    assert aws.images.list_tags_for_resource(resourceArn=arn)["tags"] == {}
    (build,) = aws.images.list_image_build_versions()["imageSummaryList"]
    assert build["tags"] == {}


def test_an_image_has_at_most_50_tags(aws: Account) -> None:
    arn = aws.import_image(tags={str(number): "" for number in range(50)})
    refusal = refused(lambda: aws.images.tag_resource(resourceArn=arn, tags={"one": "more"}))
    assert refusal[:2] == ("InvalidParameterException", 400)


def test_tags_of_a_deleted_image_are_not_found(aws: Account) -> None:
    arn = aws.import_image()
    aws.finish()
    aws.images.delete_image(imageBuildVersionArn=arn)
    for call in (
        lambda: aws.images.tag_resource(resourceArn=arn, tags={"a": "b"}),
        lambda: aws.images.untag_resource(resourceArn=arn, tagKeys=["a"]),
        lambda: aws.images.list_tags_for_resource(resourceArn=arn),
    ):
        assert refused(call)[:2] == ("ResourceNotFoundException", 404)


def test_builds_are_listed_with_tags_and_states(aws: Account) -> None:
    task_id = aws.start()
    first = aws.import_image(task_id, tags={"a": "b"})
    aws.import_image(task_id, semanticVersion="2.0.0")
    listed = aws.images.list_image_build_versions(imageVersionArn=version_of(first))
    (build,) = listed["imageSummaryList"]
    assert build["arn"] == first
    assert build["tags"] == {"a": "b"}
    assert build["state"] == {"status": "PENDING"}
    assert len(aws.images.list_image_build_versions()["imageSummaryList"]) == 2


def test_builds_of_an_unknown_version_are_none_or_not_found(aws: Account) -> None:
    arn = f"arn:aws:imagebuilder:us-east-1:{aws.account_id}:image/golden/1.0.0"
    listed = aws.images.list_image_build_versions(imageVersionArn=arn)
    assert listed["imageSummaryList"] == []
    aws.server.knobs(unknown_image_version="not_found")
    refusal = refused(lambda: aws.images.list_image_build_versions(imageVersionArn=arn))
    assert refusal[:2] == ("ResourceNotFoundException", 404)


def test_each_image_version_is_listed_once(aws: Account) -> None:
    task_id = aws.start()
    arns = [aws.import_image(task_id, semanticVersion=f"1.0.{n}") for n in (0, 0, 1)]
    listed = aws.images.list_images()["imageVersionList"]
    assert [image["arn"] for image in listed] == [version_of(arns[2]), version_of(arns[0])]
    named: Any = [{"name": "version", "values": ["1.0.1"]}]
    (found,) = aws.images.list_images(filters=named)["imageVersionList"]
    assert found["version"] == "1.0.1"
    assert aws.images.list_images(owner="Amazon")["imageVersionList"] == []
    wrong: Any = [{"name": "colour", "values": ["red"]}]
    refusal = refused(lambda: aws.images.list_images(filters=wrong))
    assert refusal[0] == "InvalidRequestException"


def test_lists_show_the_newest_first(aws: Account) -> None:
    task_id = aws.start()
    arns = [aws.import_image(task_id, semanticVersion=f"1.0.{n}") for n in (1, 2, 0)]
    builds = aws.images.list_image_build_versions()["imageSummaryList"]
    assert [build["arn"] for build in builds] == arns[::-1]


def test_lists_are_paginated(aws: Account) -> None:
    task_id = aws.start()
    arns = [aws.import_image(task_id) for _ in range(5)]
    pages: list[list[str]] = []
    token: dict[str, Any] = {}
    while not pages or token["nextToken"]:
        page: Any = aws.images.list_image_build_versions(maxResults=2, **token)
        pages.append([build["arn"] for build in page["imageSummaryList"]])
        token = {"nextToken": page.get("nextToken")}
    newest = arns[::-1]
    assert pages == [newest[:2], newest[2:4], newest[4:]]
    refusal = refused(lambda: aws.images.list_image_build_versions(nextToken="?"))
    assert refusal[:2] == ("InvalidPaginationTokenException", 400)


def test_the_ami_is_tagged_created_by_image_builder_only_if_the_knob_says_so(aws: Account) -> None:
    for tagged in (False, True):
        aws.server.knobs(tag_imported_ami=tagged)
        arn = aws.import_image()
        aws.finish()
        ami = aws.image(arn)["outputResources"]["amis"][0]["image"]
        (found,) = aws.ec2.describe_images(ImageIds=[ami])["Images"]
        expected = [{"Key": "CreatedBy", "Value": "EC2 Image Builder"}] if tagged else []
        assert found.get("Tags", []) == expected


def test_accounts_and_regions_are_separate(aws: Account) -> None:
    arn = aws.import_image()
    session = aws.server.session()
    stranger = session.client("imagebuilder", aws_access_key_id="999999999999")
    refusal = refused(lambda: stranger.get_image(imageBuildVersionArn=arn))
    assert refusal[0] == "ResourceNotFoundException"
    away = session.client("imagebuilder", aws_access_key_id=aws.account_id, region_name="eu-west-1")
    assert away.list_images()["imageVersionList"] == []
