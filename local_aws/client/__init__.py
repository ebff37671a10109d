"""What runs outside the server: start it, point programs at it, and use it from Python."""
