"""IAM: permission checks, execution roles and service roles."""
