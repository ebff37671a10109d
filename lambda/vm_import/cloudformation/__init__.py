"""CloudFormation's protocol for custom resources."""
