"""The CloudFormation protocol: crhelper, with its traps closed.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html
"""

from __future__ import annotations

import bisect
import itertools
import json
import logging
import os
import random
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn

import crhelper
import urllib3

from errors import VmImportError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deadline import LambdaContext

logger = logging.getLogger(__name__)

# CloudFormation takes no longer answer.
_LONGEST_ANSWER: Final = 4096
_PUT_TIMEOUT: Final = urllib3.Timeout(connect=5, read=10)
_LONGEST_PAUSE: Final = 30.0
# Too little time for another PUT.
_LEAST_TIME: Final = 2.0


class NotYetError(Exception):
    """Raised by a function that will be called again for the event: nothing is answered now."""


class UndeliveredAnswerError(Exception):
    """CloudFormation's ResponseURL took no answer until the function's time was up.

    It fails the invocation, so that Lambda brings the event back.
    """


class CfnResource(crhelper.CfnResource):
    """crhelper.CfnResource that gives every event one answer, which always arrives or is retried.

    What it does otherwise than crhelper 2.0.12, and why:

    - a failed request keeps the physical id that was set, and one that set none gets the old id,
      or the request's id: never a random, empty or boolean one, so that Delete finds what Create
      made;
    - the reason keeps its beginning, and as much as CloudFormation takes in an answer;
    - an answer counts as delivered when the ResponseURL says 2xx; until then it is put again,
      with growing pauses, and in the end the invocation fails, so that Lambda retries the event;
    - no timer answers behind the back of code that goes on;
    - no polling by EventBridge rules: a function has room for the permissions of about 50;
    - no sleep before the answer to a Delete;
    - no Lambda, EventBridge and CloudWatch Logs clients, which only crhelper's polling needs;
    - no ResponseURL in the log: it is signed, and whoever has it can answer.
    """

    # crhelper's own
    _event: dict[str, Any]
    _context: LambdaContext
    _response_url: str

    def __init__(self) -> None:
        """Log JSON at INFO: at DEBUG crhelper logs whole events, the signed ResponseURL too."""
        # crhelper makes its three clients unless it believes that it runs in SAM's local Lambda.
        before = os.environ.get("AWS_SAM_LOCAL")
        os.environ["AWS_SAM_LOCAL"] = "true"
        try:
            super().__init__(
                json_logging=True, log_level="INFO", boto_level="ERROR", sleep_on_delete=0
            )
        finally:
            if before is None:
                del os.environ["AWS_SAM_LOCAL"]
            else:
                os.environ["AWS_SAM_LOCAL"] = before
        self._sam_local = before
        self._http = urllib3.PoolManager(retries=False)
        self._undelivered: UndeliveredAnswerError | None = None
        self._not_yet = False

    def __call__(self, event: dict[str, Any], context: LambdaContext) -> None:
        """Handle an event and deliver one answer to it, or none if it is not yet time.

        Raises:
            UndeliveredAnswerError: The answer could not be delivered.
        """
        self._undelivered = None
        self._not_yet = False
        super().__call__(event, context)

    def keep_physical_id(self, physical_id: str) -> None:
        """Answer with this physical id, whatever fails from here on."""
        self.PhysicalResourceId = physical_id

    def _set_timeout(self) -> None:
        """Set no timer: the code ends by its own deadline, and a killed one is retried."""

    def _wrap_function(self, func: Callable[[dict[str, Any], Any], object] | None) -> None:
        """Call the function; what it sets as physical id stays, whatever it returns or raises."""
        try:
            physical_id = func(self._event, self._context) if func else None
        except NotYetError:
            self._not_yet = True
        except Exception as error:
            logger.exception("%s failed", self._event["RequestType"])
            self.Reason = str(error) if isinstance(error, VmImportError) else repr(error)
            self.Status = "FAILED"
        else:
            if isinstance(physical_id, str) and physical_id:
                self.PhysicalResourceId = physical_id

    def _refuse_polling(self, func: object) -> NoReturn:
        raise TypeError(f"crhelper's polling makes a rule and a permission a resource: {func}")

    poll_create = poll_update = poll_delete = _refuse_polling

    def generate_physical_id(self, event: Mapping[str, Any]) -> str:
        """Return the request's id, which is the same when Lambda retries the event."""
        return str(event["RequestId"])

    def _cfn_response(self, event: Mapping[str, Any]) -> None:
        if not self._not_yet:
            super()._cfn_response(event)  # type: ignore[misc]  # crhelper has no types

    def _send(self, status: str | None = None, reason: str = "") -> None:
        """Deliver the answer; crhelper calls this a second time for what the first call raises."""
        if self._undelivered:
            raise self._undelivered
        answer = {
            "Status": status or self.Status,
            "Reason": (reason if status else self.Reason) or "",
            "PhysicalResourceId": self.PhysicalResourceId or self.generate_physical_id(self._event),
            "StackId": self.StackId,
            "RequestId": self.RequestId,
            "LogicalResourceId": self.LogicalResourceId,
            "NoEcho": self.NoEcho,
            "Data": self.Data,
        }
        logger.info({"answer": answer["Status"], "physical_id": answer["PhysicalResourceId"]})
        self._deliver(encode(answer, f"see log stream {self._context.log_stream_name}"))

    def _deliver(self, body: bytes) -> None:
        pause = 1.0
        while True:
            problem = self._put(body)
            if not problem:
                return
            logger.warning("CloudFormation's ResponseURL did not take the answer: %s", problem)
            seconds = pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not cryptography
            remaining = self._context.get_remaining_time_in_millis() / 1000
            if remaining - seconds < _LEAST_TIME:
                self._undelivered = UndeliveredAnswerError(problem)
                raise self._undelivered
            time.sleep(seconds)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _put(self, body: bytes) -> str | None:
        """Put the answer; return what went wrong, with nothing of the URL in it."""
        try:
            # S3 signed the URL for an empty content type.
            response = self._http.request(
                "PUT",
                self._response_url,
                body=body,
                headers={"Content-Type": ""},
                timeout=_PUT_TIMEOUT,
            )
        except urllib3.exceptions.HTTPError as error:
            return type(error).__name__
        return None if response.status // 100 == 2 else f"HTTP {response.status}"  # noqa: PLR2004


def encode(answer: Mapping[str, Any], where_the_rest_is: str) -> bytes:
    """Write an answer in at most 4096 bytes, cutting the end of the reason if need be."""
    body = json.dumps(answer).encode()
    if len(body) <= _LONGEST_ANSWER:
        return body
    note = f"... ({where_the_rest_is})"
    room = _LONGEST_ANSWER - len(json.dumps({**answer, "Reason": note}))
    if room < 0:
        too_long = "the attributes are longer than CloudFormation takes"
        return json.dumps({**answer, "Status": "FAILED", "Reason": too_long, "Data": {}}).encode()
    sizes = list(itertools.accumulate(len(json.dumps(c)) - 2 for c in answer["Reason"]))
    reason = answer["Reason"][: bisect.bisect(sizes, room)] + note
    return json.dumps({**answer, "Reason": reason}).encode()
