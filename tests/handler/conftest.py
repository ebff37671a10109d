from __future__ import annotations

import itertools
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from index import handler
from local_aws import LocalAws
from local_aws.client.prerequisites import DISK, Prerequisites
from tests.handler.cloudformation import CustomResource, ResponseUrls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_numbers = itertools.count()


class Aws:
    """The AWS on this machine, as a person would prepare it and look at it."""

    def __init__(self, local: LocalAws) -> None:
        self.local = local
        session = local.session()
        endpoint = local.environment["AWS_ENDPOINT_URL"]
        self._images = session.client("imagebuilder", endpoint_url=endpoint)
        self._prerequisites = Prerequisites(local)

    def import_task(self, key: str = DISK) -> str:
        """Start an ImportImage task."""
        return self._prerequisites.import_image(key)

    def properties(self, **changes: Any) -> dict[str, Any]:
        """Properties of an image that no other test has."""
        properties = {
            "Name": f"rhel9-{next(_numbers)}",
            "SemanticVersion": "1.0.0",
            "Platform": "Linux",
            "VmImportTaskId": changes.get("VmImportTaskId") or self.import_task(),
        }
        return {**properties, **changes}

    def imports(self, resource: CustomResource) -> list[dict[str, Any]]:
        """The ImportVmImage requests that a resource made."""
        return [
            call["request"]
            for call in self.local.calls("ImportVmImage")
            if resource.stack_id in str(call["request"])
        ]

    def operations(self, arn: str) -> list[str]:
        """The calls about an image, in order."""
        return [call["operation"] for call in self.local.calls() if arn in str(call["request"])]

    def image(self, arn: str) -> dict[str, Any]:
        """An image, as Image Builder describes it."""
        return dict(self._images.get_image(imageBuildVersionArn=arn)["image"])

    def all_images(self, resource: CustomResource) -> list[str]:
        """The images that carry a resource's tags, of all names and versions."""
        versions = self._images.get_paginator("list_images").paginate(owner="Self")
        builds = [
            build
            for page in versions
            for version in page["imageVersionList"]
            for build in self._images.list_image_build_versions(
                imageVersionArn=version["arn"].removesuffix("/1")
            )["imageSummaryList"]
        ]
        return [
            build["arn"]
            for build in builds
            if build["tags"].get("cdk-vm-import:stack") == resource.stack_id
        ]

    def tag(self, arn: str, tags: dict[str, str]) -> None:
        """Tag an image by hand."""
        self._images.tag_resource(resourceArn=arn, tags=tags)

    def cancel(self, arn: str) -> None:
        """Cancel an import by hand, and wait for its end."""
        self._images.cancel_image_creation(imageBuildVersionArn=arn, clientToken="by-hand")
        self.local.advance(60)

    def delete(self, arn: str) -> None:
        """Delete an image by hand."""
        self._images.delete_image(imageBuildVersionArn=arn)

    def recipe(self, parent: str) -> None:
        """Make an image recipe on an image."""
        self._images.create_image_recipe(
            name=f"recipe-{next(_numbers)}",
            semanticVersion="1.0.0",
            parentImage=parent,
            clientToken=str(uuid.uuid4()),
        )


@pytest.fixture(scope="session")
def local() -> Iterator[LocalAws]:
    # an hour of AWS time in a minute: a cancelled image is CANCELLED in a third of a second
    with LocalAws.start(speed=60) as local:
        yield local


@pytest.fixture(scope="session")
def prepared(local: LocalAws) -> Aws:
    return Aws(local)


@pytest.fixture
def aws(prepared: Aws, monkeypatch: pytest.MonkeyPatch, urls: ResponseUrls) -> Iterator[Aws]:
    """The AWS on this machine, with the handler pointed at it."""
    for name, value in prepared.local.environment.items():
        monkeypatch.setenv(name, value)
    aws_authority = Path(prepared.local.environment["AWS_CA_BUNDLE"]).read_text()
    urls.bundle.write_text(urls.bundle.read_text() + aws_authority)
    monkeypatch.setenv("SSL_CERT_FILE", str(urls.bundle))
    yield prepared
    prepared.local.clear_faults()


@pytest.fixture
def knobs(prepared: Aws) -> Iterator[Callable[..., None]]:
    """Set knobs of the local AWS for one test."""
    before = prepared.local.knobs()

    def knobs(**changes: object) -> None:
        prepared.local.knobs(**changes)

    yield knobs
    prepared.local.knobs(**before)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def urls(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ResponseUrls]:
    bundle, certificate = tmp_path / "ca.pem", tmp_path / "server.pem"
    authority.cert_pem.write_to_path(bundle)
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with ResponseUrls(certificate, bundle) as urls:
        yield urls


@pytest.fixture
def resource(urls: ResponseUrls) -> CustomResource:
    return CustomResource(urls, handler)


@pytest.fixture
def another(urls: ResponseUrls) -> CustomResource:
    return CustomResource(urls, handler)
