"""The signal to a wait condition of the stack.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/using-cfn-waitcondition.html
"""

from __future__ import annotations

import logging
from typing import Any, Final

import urllib3

from cfn_resource import UndeliveredAnswerError, encode

logger = logging.getLogger(__name__)

_ID: Final = "available"
_RETRIES: Final = urllib3.Retry(total=6, backoff_factor=1, status_forcelist=range(500, 600))
_http = urllib3.PoolManager(retries=_RETRIES, timeout=urllib3.Timeout(connect=5, read=10))


def signal_success(handle: str, ami: str) -> None:
    """Tell that the image is AVAILABLE.

    Args:
        handle: The handle's URL.
        ami: Id of the AMI. The construct takes the data apart at the bars.
    """
    _signal(handle, {"Status": "SUCCESS", "Reason": "the image is AVAILABLE", "Data": f"||{ami}|"})


def signal_failure(handle: str, reason: str) -> None:
    """Tell that there will be no image, so that the stack rolls back at once.

    Args:
        handle: The handle's URL.
        reason: What the stack event shows.
    """
    _signal(handle, {"Status": "FAILURE", "Reason": reason, "Data": ""})


def _signal(handle: str, signal: dict[str, Any]) -> None:
    logger.info({"signal": signal["Status"]})
    body = encode({**signal, "UniqueId": _ID}, "see the function's log")
    try:
        # S3 signed the URL for an empty content type.
        response = _http.request("PUT", handle, body=body, headers={"Content-Type": ""})
    except urllib3.exceptions.HTTPError as error:
        # nothing of the URL in it
        raise UndeliveredAnswerError(type(error).__name__) from None
    if response.status // 100 != 2:  # noqa: PLR2004
        # The stack gave up on the handle: nobody waits for the signal.
        logger.warning("the wait condition's handle took no signal: HTTP %s", response.status)
