"""The `cliffscope` command: one file a subcommand; nothing heavy is imported before a command runs."""

from interp.cli.app import main

__all__ = ["main"]
