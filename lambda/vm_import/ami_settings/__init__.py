"""Custom::VmAmiSettings."""
