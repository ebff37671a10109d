"""Custom::ImportedVmImage and Custom::VmImageWait: images in EC2 Image Builder."""
