"""`python -m local_aws up` and `env`, run as a user does."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local_aws import LocalAws, LocalAwsError, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
FUNCTION = """
import json, os, urllib.request
import boto3
def handler(event, context):
    if event["RequestType"] != "Delete":
        boto3.client("imagebuilder").list_images()
    who = boto3.client("sts").get_caller_identity()["Arn"]
    url, body = event["ResponseURL"], {
        "Status": "SUCCESS", "PhysicalResourceId": "probe", "Data": {"Who": who},
        **{name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}}
    request = urllib.request.Request(url, json.dumps(body).encode(), method="PUT")
    urllib.request.urlopen(request)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local_aws", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def wait_for_end(pid: int) -> bool:
    """Return whether a process ends within a minute."""
    for _ in range(6000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def up() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "local_aws", "up", "--port", "0", "--speed", "60"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_up_serves_until_a_signal_and_removes_its_files(
    up: subprocess.Popen[str], end: signal.Signals
) -> None:
    assert up.stdout
    word, url = up.stdout.readline().split()
    assert word == "ready"
    assert url.startswith("https://localhost:")
    port = int(url.rpartition(":")[2])
    shell = (
        f'eval "$({sys.executable} -m local_aws env --port {port})" && '
        "curl -sSf $AWS_ENDPOINT_URL/_local_aws/knobs && "
        f"{sys.executable} -c 'import boto3; "
        'print(boto3.client("sts").get_caller_identity()["Account"])\''
    )
    response = subprocess.run(
        ["sh", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "import_seconds" in response.stdout
    assert "123456789012" in response.stdout

    who, worker = deploy_a_custom_resource(LocalAws(port))
    assert "123456789012" in who
    assert (ROOT / ".local_aws" / str(port)).is_dir()

    up.send_signal(end)
    assert up.wait(60) == 0
    assert wait_for_end(worker)
    assert not (ROOT / ".local_aws" / str(port)).exists()


def deploy_a_custom_resource(server: LocalAws) -> tuple[str, int]:
    """Return the caller identity of a custom resource's function, and the pid of its process."""
    properties = {
        "Runtime": "python3.13",
        "Handler": "index.handler",
        "Code": {"ZipFile": FUNCTION},
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
    }
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}}
    document = {"Version": "2012-10-17", "Statement": [trust | {"Action": "sts:AssumeRole"}]}
    template = {
        "Resources": {
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {"AssumeRolePolicyDocument": document},
            },
            "Function": {"Type": "AWS::Lambda::Function", "Properties": properties},
            "Probe": {
                "Type": "Custom::Probe",
                "Properties": {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}},
            },
        },
        "Outputs": {"Who": {"Value": {"Fn::GetAtt": ["Probe", "Who"]}}},
    }
    api: Any = server.session().client("cloudformation")
    api.create_stack(StackName="probe", TemplateBody=json.dumps(template))
    while (stack := api.describe_stacks(StackName="probe")["Stacks"][0])[
        "StackStatus"
    ] == "CREATE_IN_PROGRESS":
        time.sleep(0.05)
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    pids = [
        int(folder.name)
        for folder in Path("/proc").iterdir()
        if folder.name.isdigit()
        and f".local_aws/{server.port}/".encode() in (folder / "cmdline").read_bytes()
    ]
    (worker,) = pids
    return stack["Outputs"][0]["OutputValue"], worker


def test_the_server_listens_only_on_127_0_0_1(server: LocalAws) -> None:
    """Check every port on which the processes of the server listen."""
    assert server.process
    listening = []
    sockets = {
        str(link.readlink())
        for link in Path(f"/proc/{server.process.pid}/fd").iterdir()
        if link.is_symlink()
    }
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                listening.append(fields[1])
    assert listening == [f"0100007F:{server.port:04X}"]


def test_a_port_in_use_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        response = run("up", "--port", str(port))
    assert response.returncode == 1
    assert response.stdout == ""
    assert f"port {port} on 127.0.0.1 is not available" in response.stderr
    assert "Traceback" not in response.stderr


def test_the_next_start_removes_the_files_of_a_killed_server(up: subprocess.Popen[str]) -> None:
    assert up.stdout
    port = up.stdout.readline().rpartition(":")[2].strip()
    up.kill()
    up.wait()
    assert (ROOT / ".local_aws" / port).is_dir()
    with LocalAws.start():
        assert not (ROOT / ".local_aws" / port).exists()


def test_env_without_a_server_is_a_clear_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    response = run("env", "--port", str(port))
    assert response.returncode == 1
    assert response.stdout == ""
    assert f"no simulated AWS serves on port {port}" in response.stderr
    with pytest.raises(LocalAwsError):
        environment(port)


def test_env_exports_all_variables_and_unsets_others(server: LocalAws) -> None:
    lines = run("env", "--port", str(server.port)).stdout.splitlines()
    exported = dict(line.removeprefix("export ").split("=", 1) for line in lines[1:])
    assert exported == environment(server.port)
    assert lines[0].split()[:2] == ["unset", "AWS_PROFILE"]


def test_speed_must_be_greater_than_0() -> None:
    assert run("up", "--speed", "0").returncode == 2
