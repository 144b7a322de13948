"""What the command line takes: commands, arguments, and the text of `harbor-ha --help`."""

import argparse

from deployments import commands
from deployments.init.options import add_init

# Where the watcher's /metrics listens on loopback.
METRICS_PORT = 9096

EPILOG = """\
exit status:
  0  done
  1  the flow failed, crashed or was cancelled; --watch of check, and status: it is down, or nobody can tell;
     doctor: a link is broken
  2  wrong usage
  3  the site file has mistakes; nothing was changed
  4  Prefect does not answer
  5  refused: no such site, flow or parameter, and nothing was started; or, with --watch, by the flow itself
  6  --watch: the flow has not ended in time; it goes on
  7  --watch of check, and status: the site is served, and something is wrong with it; doctor: likewise

environment:
  PREFECT_API_URL           the server, http://127.0.0.1:4200/api
  PREFECT_API_AUTH_STRING   user:password, when the server asks for it
  HARBOR_HA_HOME            local copies of the sites, ~/.harbor-ha by default
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; what it finds has the function that does it as `command`."""
    parser = argparse.ArgumentParser(
        prog="harbor-ha",
        description="Run Harbor on two machines, with flows for what an operator does.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = parser.add_subparsers(required=True, metavar="COMMAND")
    add_init(known)

    apply = known.add_parser("apply", help="check a site file and save the site")
    apply.add_argument("site_file", metavar="SITE.yml")
    apply.add_argument("--check", action="store_true", help="check only, save nothing")
    apply.set_defaults(command=commands.apply)

    setup = known.add_parser("setup", help="register Block types and the automation for killed flows")
    setup.add_argument(
        "--notify",
        metavar="TYPE/NAME",
        help="notification Block that people are told through: custom-webhook/ops",
    )
    setup.set_defaults(command=commands.setup)

    serve = known.add_parser("serve", help="serve all flows until stopped")
    serve.add_argument(
        "--site", action="append", default=[], help="run the schedules for this site; repeatable"
    )
    serve.add_argument("--limit", type=int, help="how many runs at once")
    serve.add_argument("--no-watch", action="store_true", help="the watcher is a service of its own, or none")
    serve.add_argument("--metrics-port", type=int, default=METRICS_PORT, help="of the watcher")
    serve.set_defaults(command=commands.serve)

    watch = known.add_parser(
        "watch", help="look at sites all the time, and start failover when one is needed"
    )
    watch.add_argument("--site", action="append", required=True, help="repeatable")
    watch.add_argument("--host", default="127.0.0.1", help="where /metrics listens")
    watch.add_argument("--port", type=int, default=METRICS_PORT, help="likewise; 0: no metrics")
    watch.add_argument(
        "--pace", type=_pace, default=1.0, help="seconds between two lines of a node, 0.5 to 60 (default: 1)"
    )
    watch.add_argument(
        "--no-calls", action="store_true", help="start no failover; Prometheus' rules and people decide"
    )
    watch.add_argument("--with-input", action="store_true", help="end when the standard input does")
    watch.set_defaults(command=commands.watch)

    run = known.add_parser("run", help="start a flow through its deployment")
    run.add_argument("flow", metavar="FLOW", help="name of the deployment, such as bootstrap")
    run.add_argument("--site", required=True)
    run.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="repeatable")
    run.add_argument("--watch", action="store_true", help="wait for the end and print the report")
    run.add_argument("--timeout", type=float, default=6 * 3600, help="seconds to watch (default: 6 hours)")
    run.add_argument(
        "--without-prefect",
        action="store_true",
        help="run the flow in this process, when Prefect is dead; exit status as with --watch",
    )
    run.set_defaults(command=commands.run)

    sites = known.add_parser("sites", help="list the saved sites")
    sites.set_defaults(command=commands.sites)

    status = known.add_parser(
        "status", help="look at a site, or at all, without Prefect: nodes, verdict, backup"
    )
    status.add_argument("site", metavar="SITE", nargs="?")
    status.set_defaults(command=commands.status)

    doctor = known.add_parser(
        "doctor", help="try every link of the chain that makes a failover by itself, without harm"
    )
    doctor.add_argument("site", metavar="SITE")
    doctor.add_argument("--metrics-port", type=int, default=METRICS_PORT, help="of the watcher, on loopback")
    doctor.add_argument("--prometheus", default="", metavar="URL", help="ask it for its rules and its target")
    doctor.add_argument("--alertmanager", default="", metavar="URL", help="tell it an alert of a sound site")
    doctor.set_defaults(command=commands.doctor)

    logs = known.add_parser("logs", help="print what the newest run of a site, or a run, has told")
    logs.add_argument("run", metavar="SITE|RUN", nargs="?", help="a site, or the id or name of a run")
    logs.set_defaults(command=commands.logs)

    backups = known.add_parser("backups", help="list the backups in a site's bucket, the newest first")
    backups.add_argument("site", metavar="SITE")
    backups.set_defaults(command=commands.backups)

    remove = known.add_parser("remove", help="forget a site: its schedules, its Blocks and its local copy")
    remove.add_argument("site", metavar="SITE")
    remove.add_argument("--yes", action="store_true", help="do it; without this it is only said")
    remove.set_defaults(command=commands.remove)

    receive = known.add_parser("receive", help="start flows for the alerts of Alertmanager")
    receive.add_argument("--config", required=True, metavar="RECEIVER.yml")
    receive.add_argument("--host", default="127.0.0.1")
    receive.add_argument("--port", type=int, default=9095)
    receive.set_defaults(command=commands.receive)
    return parser


def _pace(text: str) -> float:
    try:
        pace = float(text)
    except ValueError:
        pace = 0.0
    if not 0.5 <= pace <= 60.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.5 and 60 seconds")
    return pace
