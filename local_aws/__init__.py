"""The AWS on this machine: MiniStack plus what it lacks for VM import.

`python -m local_aws up` serves it, `python -m local_aws env` points a shell at it, and
`LocalAws` starts, steers and watches it from Python. Everything else in here runs inside the
server: nothing below `local_aws.server` is imported by a client.
"""

from local_aws.client.local_aws import LocalAws, LocalAwsError, environment

__all__ = ["LocalAws", "LocalAwsError", "environment"]
