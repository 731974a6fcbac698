"""A running server keeps every promise of its contract: schemathesis, all checks, the same requests each time."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from roomkey.domain.policy import SessionPolicy
from tests.support.effort import examples
from tests.support.rest import Rest, a_library, served

SECONDS = 300
"""Longer than a slow machine needs for what takes fifteen seconds here."""

HOOKS = Path(__file__).parents[1] / "support" / "contract_hooks.py"

STATE_DECIDES = """
[[operations]]
include-path-regex = "^/documents"
checks.positive_data_acceptance.expected-statuses = ["2xx", 304, 401, 403, 404, 406, 409, 422]

[[operations]]
include-operation-id = "import_document"
enabled = false
"""
"""
Whether a patch has a place to go, or a text is a text, no schema can say. And nothing that is drawn is an export.
"""


def schemathesis(url: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{url}/openapi.json",
        *("--generation-deterministic", "--no-color", "--no-shrink"),
        *arguments,
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS)}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def test_whoever_has_a_key_finds_every_operation_as_the_contract_says(tmp_path: Path) -> None:
    open_documents = a_library()
    rest = Rest(open_documents=open_documents)
    (tmp_path / "schemathesis.toml").write_text(STATE_DECIDES)

    with served(rest.app, open_documents) as url:
        # What every parameter may not be takes longer than all the rest, and is tried by the test below.
        phases = ("--phases", "examples,fuzzing,stateful")
        done = schemathesis(url, tmp_path, "-n", str(examples(5)), *phases, "-H", f"Authorization: Bearer {rest.admin}")

    assert done.returncode == 0, done.stdout
    assert "API Links" in done.stdout  # sessions were created, changed and deleted one after the other


@pytest.mark.slow
def test_a_server_without_documents_keeps_its_contract_too(tmp_path: Path) -> None:
    rest = Rest()

    with served(rest.app) as url:
        done = schemathesis(url, tmp_path, "-n", "12", "-H", f"Authorization: Bearer {rest.admin}")

    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_whoever_has_no_credential_finds_the_same_in_development(tmp_path: Path) -> None:
    rest = Rest(dev=True)

    with served(rest.app) as url:
        done = schemathesis(url, tmp_path, "-n", "5", "--phases", "examples,fuzzing,stateful")

    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_whoever_has_the_token_of_a_session_finds_its_operations_as_the_contract_says(tmp_path: Path) -> None:
    rest = Rest(policy=SessionPolicy(idle_timeout=None))
    token = asyncio.run(rest.session()).token

    with served(rest.app) as url:
        done = schemathesis(
            url,
            tmp_path,
            *("-n", "5", "-H", f"Authorization: Bearer {token}", "--phases", "examples,coverage,fuzzing"),
            *("--include-operation-id", "get_mine", "--include-operation-id", "create_ticket"),
            *("--include-operation-id", "list_sessions", "--include-operation-id", "get_session"),
        )

    assert done.returncode == 0, done.stdout
