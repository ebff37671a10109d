"""EC2: VM Import, and the deletion and tags of AMIs and snapshots."""
