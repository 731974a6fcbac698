"""The command ``roomkey``, which is ``python -m roomkey``, too."""

import sys


def main() -> int:
    """As ``roomkey.cli.main``; an interruption while that is being loaded is no error either."""
    try:
        from roomkey import cli  # noqa: PLC0415  # takes long enough to be interrupted

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
