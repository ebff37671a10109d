"""CloudFormation: stack operations, resource types, response URLs and template conditions."""
