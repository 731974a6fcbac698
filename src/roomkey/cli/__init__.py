"""The command line: ``roomkey serve``, ``roomkey sessions …`` and the rest; nobody sees a traceback."""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from roomkey.cli.outcome import EXIT_CODES, Exit, Failed, abandon_output, complain, prepare_streams
from roomkey.cli.usage import explain as explain_usage

app = App(
    "roomkey",
    help="Session management for real-time collaborative editing.",
    help_epilogue=EXIT_CODES,
    help_format="plaintext",
    version_flags=(),
    suppress_keyboard_interrupt=False,  # `main` has the exit code
    default_parameter=Parameter(negative="", show_default=False),
    result_action="return_value",
)


@app.command(name="--version")
def show_version() -> None:
    """Display application version."""
    from roomkey import __version__  # noqa: PLC0415  # asks the package's metadata, which takes a while

    print(__version__)  # noqa: T201  # the answer


# Paths instead of functions: a command loads what it needs when it is called.
app.command("roomkey.cli.serve:serve", name="serve", help="Run the server until SIGINT or SIGTERM.")
app.command("roomkey.cli.sessions:app", name="sessions", help="Create, look at, and end sessions.")
app.command("roomkey.cli.documents:app", name="documents", help="Look at documents; take them elsewhere and back.")
app.command("roomkey.cli.access:app", name="access", help="Say who may do what, and why; ask the application again.")
app.command("roomkey.cli.groups:app", name="groups", help="Give groups their grants, which sessions name in theirs.")
app.command(
    "roomkey.cli.webhooks:app",
    name="webhooks",
    help="Look at webhooks and their deliveries; enable one again; replay a message.",
)
app.command("roomkey.cli.audit:app", name="audit", help="Read and verify the audit log, prove entries, be a witness.")
app.command(
    "roomkey.cli.storage:app", name="storage", help="Take everything to another storage; look whether one is sound."
)
app.command("roomkey.cli.encryption:app", name="encryption", help="Look at data keys, and rotate them.")
app.command("roomkey.cli.serve:show_config", name="config", help="Show every setting and where it came from.")
app.command("roomkey.cli.serve:show_settings", name="settings", help="Say what can be set, and what it is for.")
app.command("roomkey.cli.nodes:nodes", name="nodes", help="List the nodes that work together.")
app.command("roomkey.cli.doctor:doctor", name="doctor", help="Check configuration and machine, and say what to do.")
app.command("roomkey.cli.migrate:migrate", name="migrate", help="Bring the schema of a SQL database up to date.")
app.command("roomkey.cli.tools:openapi", name="openapi", help="Print the HTTP contract.")
app.command("roomkey.cli.tools:asyncapi", name="asyncapi", help="Print the messages of sockets and hooks.")
app.command("roomkey.cli.tools:messages", name="messages", help="Print the JSON Schema of the messages of /ws.")
app.command("roomkey.cli.tools:bench", name="bench", help="Measure how fast sessions are here.")
app.command("roomkey.cli.keys:app", name="keys", help="Make, list, rotate and revoke API keys; make master keys.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; ``arguments`` are those of the process if they are not given."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens
    if debug:
        tokens.remove("--debug")
    prepare_streams()
    try:
        code = int(app(tokens, exit_on_error=False, print_error=False) or Exit.DONE)
        sys.stdout.flush()
    except CycloptsError as error:
        complain(*explain_usage(error))
        return Exit.USAGE
    except KeyboardInterrupt:
        return 130  # as shells report SIGINT
    except (BrokenPipeError, SystemExit):  # rich makes the latter of the former
        abandon_output()
        return Exit.DONE  # whoever reads us has seen enough
    except Exception as error:  # the edge: everything becomes a line and an exit code
        if debug:
            raise
        return _report(error)
    return code


def _report(error: Exception) -> Exit:
    from roomkey.errors import ConfigurationError, RoomkeyError, Storage, explain  # noqa: PLC0415  # loads msgspec

    match error:
        case Failed():
            code, problems = error.code, [str(error)]
        case ConfigurationError():
            code, problems = Exit.USAGE, error.problems
        case Storage():
            code, problems = Exit.AWAY, [str(error)]
        case RoomkeyError():
            code, problems = Exit.FAILED, [str(error)]
        case UnicodeEncodeError(reason="surrogates not allowed"):
            code, problems = Exit.USAGE, ["an argument or a variable is not UTF-8"]
        case OSError() if error.errno:
            code, problems = Exit.USAGE, [f"{error.filename or 'cannot go on'}: {explain(error)}"]
            abandon_output()  # it may be what the system refused
        case _:
            code = Exit.FAILED
            problems = [f"{type(error).__name__}: {error}", "this is a mistake of ours; --debug shows where"]
    complain(*problems)
    return code
