"""Import a virtual machine into EC2 Image Builder from a CDK stack."""

from cdk_vm_import.disk_format import DiskFormat
from cdk_vm_import.import_options import Architecture, BootMode, LicenseType
from cdk_vm_import.imported_vm_image import ImportedVmImage
from cdk_vm_import.platform import Platform
from cdk_vm_import.vm_disk import VmDisk
from cdk_vm_import.vm_image import IVmImage
from cdk_vm_import.vm_import_provider import VmImportProvider
from cdk_vm_import.vm_import_role import VmImportRole
from cdk_vm_import.vm_import_task import VmImportTask

__all__ = [
    "Architecture",
    "BootMode",
    "DiskFormat",
    "IVmImage",
    "ImportedVmImage",
    "LicenseType",
    "Platform",
    "VmDisk",
    "VmImportProvider",
    "VmImportRole",
    "VmImportTask",
]
