"""What the simulated AWS adds to MiniStack, one package for each AWS service."""
