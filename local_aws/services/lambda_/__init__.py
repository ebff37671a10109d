"""Lambda: asynchronous invocations, logs, and the AWS time that functions run in."""
