"""`python -m interp.cli`: the `cliffscope` command where it is not on the path."""

from interp.cli import main

main()
