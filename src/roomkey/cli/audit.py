"""``roomkey audit …``: receipts for entries, the keys of the log, being a witness; and where the other commands are."""

from pathlib import Path

from cyclopts import App

from roomkey.cli.outcome import EXIT_CODES, print_bytes, print_json, print_table
from roomkey.cli.target import Target, Where

app = App(
    "audit",
    help="Read and verify the audit log, prove entries, be a witness.",
    help_epilogue=EXIT_CODES,
    version_flags=(),
)
app.command("roomkey.cli.audit_trail:tail", name="tail", help="Show the latest entries, and those that follow.")
app.command("roomkey.cli.audit_trail:search", name="search", help="Find entries, the newest first.")
app.command("roomkey.cli.audit_trail:export", name="export", help="Print all entries for other programs.")
app.command(
    "roomkey.cli.audit_checks:verify",
    name="verify",
    help="Read the whole log, and say where it was changed, cut, reordered, or is not what was signed.\n\n"
    "Without --from-url and --directory it is the log of the running server or of --storage; ROOMKEY_KEY is the "
    "credential with which entries are read, too. Exit code 0 means that nothing is wrong.",
)
app.command(
    "roomkey.cli.audit_checks:prove",
    name="prove",
    help="Verify a receipt, without asking anybody, and print the entry that it proves.",
)


@app.command
def receipt(index: int, *, target: Where = None) -> None:
    """
    Print the receipt for an entry: a proof that it is in the log, which `roomkey audit prove` and others verify.

    Args:
        index: Number of the entry.
    """
    print_bytes((target or Target()).fetch("GET", f"/audit/{index}/receipt"))


@app.command(name="keys")
def show_keys(*, target: Where = None) -> None:
    """Print the verifier keys of the log, to be given to outsiders."""
    chosen = target or Target()
    answer = chosen.request("GET", "/audit/keys")
    if chosen.json:
        print_json(answer)
    else:
        print_table(("key",), [(key,) for key in answer["keys"]])


@app.command
def witness(config: Path) -> None:
    """
    Be a witness for logs of others: sign what continues what was signed before, until SIGINT or SIGTERM.

    Args:
        config: File with name, key_file, storage, and the logs and their keys.
    """
    from roomkey.cli import witness as server  # noqa: PLC0415  # the other commands serve nothing

    server.serve(server.load(config))
