"""What cdk-nag and checkov find in templates of the library and of other custom resources."""
