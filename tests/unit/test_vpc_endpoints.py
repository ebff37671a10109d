"""docs/permissions.md and integ name an endpoint for each service that the function calls."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Final

import botocore.session

import aws
from aws.session import AwsApi
from integ.definition import ENDPOINTS

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/permissions.md"
# The function's log, and the responses to CloudFormation.
OTHERS: Final = {"logs", "s3"}


def called() -> set[str]:
    """The services whose APIs the handler calls, as endpoints name them."""
    for module in pkgutil.iter_modules(aws.__path__):
        importlib.import_module(f"aws.{module.name}")
    session = botocore.session.get_session()
    return {
        session.get_service_model(api.service).endpoint_prefix for api in AwsApi.__subclasses__()
    }


def test_the_page_names_an_endpoint_for_each_service_that_the_function_calls() -> None:
    named = re.findall(r"`com\.amazonaws\.<region>\.(\w+)`", PAGE.read_text())

    assert {*named} == called() | OTHERS


def test_integ_has_an_endpoint_for_each_service_that_the_function_calls() -> None:
    of_cdk = {
        "STEP_FUNCTIONS": "states",
        "CLOUDWATCH_LOGS": "logs",
        "IMAGE_BUILDER": "imagebuilder",
    }

    assert {of_cdk.get(name, name.lower()) for name in ENDPOINTS} | {"s3"} == called() | OTHERS
