"""A simulated AWS: MiniStack, plus what it lacks for importing VMs into EC2 Image Builder.

`python -m local_aws up` serves it, `python -m local_aws env` points a shell at it, and `LocalAws`
starts and controls it from Python. `local_aws.client` is what runs outside the server,
`local_aws.server` is the server process, and `local_aws.services` has one package for each AWS
service. `local_aws.seams` is the only module that imports MiniStack. A new behaviour of Image
Builder belongs to `local_aws.services.imagebuilder`.
"""

from local_aws.client.local_aws import LocalAws, LocalAwsError, environment

__all__ = ["LocalAws", "LocalAwsError", "environment"]
