"""The checks, in the order in which they run. The import of each file registers its checks."""

from integ.checks import deployments, images, trail, waits

__all__ = ["deployments", "images", "trail", "waits"]
