"""Custom::VmImportTask: EC2's import tasks."""
