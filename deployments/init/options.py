"""The command line of `harbor-ha init`; everything heavy is imported when it runs."""

import argparse
from typing import Any

from deployments.init.questions import QUESTIONS

NODE = "NAME=[USER@]ADDRESS[:PORT]"


def add_init(commands: Any) -> None:
    """Add the command to the parsers of `harbor-ha`."""
    init = commands.add_parser("init", help="ask for what a site file needs, test it, and write it")
    init.add_argument("directory", metavar="DIRECTORY", help="for site.yml, keys and passwords")
    init.add_argument(
        "--yes", action="store_true", help="ask nothing: take options and defaults, all problems at once"
    )
    init.add_argument("--no-tests", action="store_true", help="do not try the answers")
    init.add_argument("--node", action="append", default=[], metavar=NODE, help="twice")
    init.add_argument(
        "--host-key",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="its fingerprint (SHA256:…) or the line of its .pub file; --yes takes what answers where none is given",
    )
    init.add_argument("--ssh-key", metavar="FILE", help="a private key to log in with, in place of a new one")
    init.add_argument("--certificate", metavar="FILE", help="PEM chain; without it one is self-signed")
    init.add_argument("--certificate-key", metavar="FILE", help="PEM private key of it")
    init.add_argument(
        "--age-recipient", action="append", default=[], metavar="age1…", help="in place of a new identity"
    )
    for question in QUESTIONS:
        init.add_argument(
            question.option,
            dest=question.path,
            metavar="FILE" if question.file else question.path.rpartition(".")[2].upper(),
            choices=question.choices or None,
            help=question.text.replace("%", "%%"),
        )
    init.set_defaults(command=_init)


def _init(arguments: argparse.Namespace) -> int:
    from deployments.init.command import run_init

    return run_init(arguments)
