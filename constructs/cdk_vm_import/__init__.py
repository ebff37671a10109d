"""Import a virtual machine into EC2 Image Builder from a CDK stack."""

from cdk_vm_import.imported_vm_image import ImportedVmImage
from cdk_vm_import.platform import Platform
from cdk_vm_import.vm_image import IVmImage
from cdk_vm_import.vm_import_provider import VmImportProvider

__all__ = ["IVmImage", "ImportedVmImage", "Platform", "VmImportProvider"]
