"""Checks against a real AWS account: how far the simulated AWS behaves as AWS does.

`make integ` runs them. docs/integ.md describes cost, permissions and the report.
"""
