"""The command line: `python -m local_aws up` and `python -m local_aws env`."""

from __future__ import annotations

import argparse
import shlex
import sys

from local_aws.client.local_aws import LocalAwsError, environment


def main() -> int:
    """Run a command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m local_aws", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="serve in the foreground; print `ready URL` when it serves")
    up.add_argument(
        "--speed",
        type=_positive,
        default=1.0,
        help="seconds of AWS time in a real second (default: 1)",
    )
    up.add_argument("--auth", action="store_true", help="enforce IAM permissions")
    env = commands.add_parser(
        "env", help="print `export` lines that point a shell at a running server"
    )
    for command in (up, env):
        command.add_argument(
            "--port", type=int, default=4566, help="TCP port on 127.0.0.1 (default: 4566)"
        )
    arguments = parser.parse_args()
    if arguments.command == "up":
        from local_aws.server.run import serve  # noqa: PLC0415 - `env` does not need the server

        return serve(arguments.port, arguments.speed, auth=arguments.auth)
    try:
        variables = environment(arguments.port)
    except LocalAwsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    lines = ["unset AWS_PROFILE AWS_DEFAULT_PROFILE AWS_SESSION_TOKEN AWS_SECURITY_TOKEN"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise ValueError
    return number


if __name__ == "__main__":
    sys.exit(main())
