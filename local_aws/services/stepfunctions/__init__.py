"""Step Functions: waits and timestamps in AWS time."""
