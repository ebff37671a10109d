"""The response to CloudFormation, by crhelper with its defects worked around.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html
"""

import bisect
import itertools
import json
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import crhelper
import urllib3

import log
from aws import LambdaContext
from cloudformation.step import Done, Pending, Response
from contract import LogField
from errors import Reason, VmImportError, without_end

logger = logging.getLogger(__name__)

# What a function returns for an event; None if the event has its execution now.
Outcome = Done | Pending | None

# The size of the largest response that CloudFormation accepts, in bytes.
_MAX_RESPONSE: Final = 4096
_PUT_TIMEOUT: Final = urllib3.Timeout(connect=5, read=10)
# The longest pause between two PUTs, and the least time that another PUT needs, in seconds.
_LONGEST_PAUSE: Final = 30
_LEAST_TIME: Final = 2
# crhelper creates three clients that nobody needs unless it believes to run in SAM's local Lambda.
os.environ.setdefault("AWS_SAM_LOCAL", "true")


class UndeliveredResponseError(Exception):
    """CloudFormation's ResponseURL accepted no response until the function's time was over.

    It fails the invocation, so that the state machine, or Lambda, repeats it.
    """


class CfnResource(crhelper.CfnResource):
    """crhelper.CfnResource that delivers exactly one response to each event.

    It differs from crhelper 2.0.12 in this:

    - A function returns the response as a value, or that there is none yet.
    - A failed response names what may have been created, or what the event names, or the request:
      never a random, empty or boolean physical id. So Delete finds what Create created.
    - The reason keeps the cause and the ids, and as much as CloudFormation accepts.
    - A response is delivered when the ResponseURL says 2xx. Until then it is sent again, with
      growing pauses. In the end the invocation fails, and is repeated.
    - No timer responds while the function continues.
    - No polling by EventBridge rules: a function has room for the permissions of about 50.
    - No sleep before the response to a Delete.
    - No clients for Lambda, EventBridge and CloudWatch Logs, which only crhelper's polling needs.
    - No ResponseURL in the log: it is signed, and whoever has it can respond.
    - A line of the log says what happened, in words, without the steps of crhelper.
    """

    # crhelper's own
    _event: dict[str, Any]
    _context: LambdaContext
    _response_url: str

    def __init__(self) -> None:
        """Log at level INFO: at DEBUG crhelper logs whole events, with the ResponseURL."""
        super().__init__(log_level="INFO", boto_level="ERROR", sleep_on_delete=0)
        log.use(log.JsonFormatter())
        self._http = urllib3.PoolManager(retries=False)
        self._function: Callable[[], Outcome] = lambda: None
        self._outcome: Outcome = None
        self._undelivered: UndeliveredResponseError | None = None

    def respond(
        self,
        event: Mapping[str, Any],
        context: LambdaContext,
        function: Callable[[], Outcome],
    ) -> Outcome:
        """Call a function for an event, and deliver the response that it returns.

        Args:
            event: What Lambda received.
            context: The context of the invocation.
            function: Returns the response, or that there is none yet. What it raises becomes a
                failed response.

        Returns:
            What the function returned.

        Raises:
            UndeliveredResponseError: The response could not be delivered.
        """
        self._function, self._outcome, self._undelivered = function, None, None
        self(dict(event), context)
        return self._outcome

    def log_as(self, event: Mapping[str, Any], context: LambdaContext) -> None:
        """Name an event in each line of the log from here on."""
        self._log_setup(event, context)

    def _log_setup(self, event: Mapping[str, Any], context: LambdaContext) -> None:
        super()._log_setup(event, context)  # type: ignore[misc]  # crhelper has no types
        log.use(log.JsonFormatter(event))

    def _set_timeout(self) -> None:
        """Set no timer: the function keeps its own deadline, and a killed one is repeated."""

    def _get_func(self) -> Callable[[], Outcome]:
        return self._function

    def _wrap_function(self, func: Callable[[], Outcome]) -> None:
        """Call the function, and take the response over for crhelper."""
        try:
            self._outcome = func()
        except Exception as error:
            if isinstance(error, VmImportError):
                reason = error.reason
            else:
                # A stack trace only for what nobody foresaw.
                logger.exception("the handler has a bug")
                reason = Reason(repr(error))
            physical_id = getattr(error, "physical_id", "")
            self._outcome = Done(Response(physical_id, reason=reason, status="FAILED"))
        if isinstance(self._outcome, Done):
            response = self._outcome.response
            self.Status, self.Data = response.status, dict(response.data)
            # With an id, crhelper logs nothing about it.
            self.PhysicalResourceId = response.physical_id or self.generate_physical_id(self._event)

    def _cfn_response(self, event: Mapping[str, Any]) -> None:
        if isinstance(self._outcome, Done):
            super()._cfn_response(event)  # type: ignore[misc]  # crhelper has no types

    def generate_physical_id(self, event: Mapping[str, Any]) -> str:
        """Return the event's physical id, or the request's id: the same when Lambda retries."""
        return str(event.get("PhysicalResourceId") or event["RequestId"])

    def _send(self, status: str | None = None, reason: str = "") -> None:
        """Deliver the response. crhelper calls this again for what the first call raises."""
        if self._undelivered:
            raise self._undelivered
        # crhelper names a status when it reports an error of its own.
        why = Reason(reason)
        if isinstance(self._outcome, Done) and not status:
            why = self._outcome.response.reason
        response = {
            "Status": status or self.Status,
            "PhysicalResourceId": self.PhysicalResourceId or self.generate_physical_id(self._event),
            "StackId": self.StackId,
            "RequestId": self.RequestId,
            "LogicalResourceId": self.LogicalResourceId,
            "NoEcho": self.NoEcho,
            "Data": self.Data,
        }
        physical_id = response["PhysicalResourceId"]
        fields = {"fields": {LogField.RESPONSE: response["Status"], "physical_id": physical_id}}
        if response["Status"] == "SUCCESS":
            parts = [f"{self._event['RequestType']} succeeded: {physical_id}", str(why)]
            logger.info("; ".join(filter(None, parts)), extra=fields)
        else:
            logger.error(str(why), extra=fields)
        self._deliver(encode(response, why, f"log group {self._context.log_group_name}"))

    def _deliver(self, body: bytes) -> None:
        pause, logged = 1.0, ""
        while problem := self._put(body):
            text = f"the ResponseURL did not accept the response: {problem}"
            if text != logged:
                logger.warning(text)
                logged = text
            if self._context.get_remaining_time_in_millis() / 1000 < pause + _LEAST_TIME:
                self._undelivered = UndeliveredResponseError(text)
                raise self._undelivered
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - not cryptography
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _put(self, body: bytes) -> str | None:
        """Send the response; return what went wrong, without any part of the URL."""
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


def encode(response: Mapping[str, Any], reason: Reason, log_group: str) -> bytes:
    """Write a response in at most 4096 bytes. A reason that is too long loses its hint first.

    Args:
        response: The response, without its reason.
        reason: The reason.
        log_group: Where the log is. The reason of a failure ends with it, and any that is cut.
    """

    def written(text: str) -> bytes:
        return json.dumps({**response, "Reason": text}, default=str).encode()

    with_log = replace(reason, ids=[*reason.ids, log_group])
    if response["Status"] != "SUCCESS":
        reason = with_log
    for whole in (reason, replace(with_log, hint="")):
        if len(body := written(str(whole))) <= _MAX_RESPONSE:
            return body
    for ids in (with_log.written_ids, f" ({log_group})"):
        room = _MAX_RESPONSE - len(written(f"...{ids}"))
        if room >= 0:
            sizes = itertools.accumulate(len(json.dumps(c)) - 2 for c in reason.cause)
            beginning = reason.cause[: bisect.bisect(list(sizes), room)]
            return written(f"{without_end(beginning)}...{ids}")
    too_long = "the attributes are longer than CloudFormation accepts"
    return json.dumps({**response, "Status": "FAILED", "Reason": too_long, "Data": {}}).encode()
