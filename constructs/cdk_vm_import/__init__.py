"""Import a virtual machine into EC2 Image Builder from a CDK stack."""

from importlib import metadata as _metadata

from cdk_vm_import.ami_settings import AmiSettings
from cdk_vm_import.disk_format import DiskFormat
from cdk_vm_import.import_options import Architecture, BootMode, LicenseType
from cdk_vm_import.imported_vm_image import ImportedVmImage
from cdk_vm_import.platform import Platform
from cdk_vm_import.vm_disk import VmDisk
from cdk_vm_import.vm_image import IVmImage
from cdk_vm_import.vm_import_dashboard import VmImportDashboard
from cdk_vm_import.vm_import_provider import VmImportProvider
from cdk_vm_import.vm_import_role import VmImportRole
from cdk_vm_import.vm_import_task import VmImportTask

__all__ = [
    "AmiSettings",
    "Architecture",
    "BootMode",
    "DiskFormat",
    "IVmImage",
    "ImportedVmImage",
    "LicenseType",
    "Platform",
    "VmDisk",
    "VmImportDashboard",
    "VmImportProvider",
    "VmImportRole",
    "VmImportTask",
]


def __getattr__(name: str) -> str:
    # Asked for only when it is needed: a checkout that is not installed has no version.
    if name == "__version__":
        return _metadata.version("cdk-vm-import")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
