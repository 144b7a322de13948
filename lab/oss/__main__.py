"""`python3 -m lab.oss`: serve one bucket until told to stop."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from lab.oss.crc64 import IMPLEMENTATION
from lab.oss.server import OssServer
from lab.oss.tls import Tls


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lab.oss", description="OSS server of the lab, with faults on demand."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--data", type=Path, required=True, help="directory of the bucket's content")
    parser.add_argument("--bucket", required=True)
    parser.add_argument("--access-key-id", required=True)
    parser.add_argument("--access-key-secret-file", type=Path, required=True)
    parser.add_argument("--region", default="cn-lab")
    parser.add_argument("--tls-port", type=int, default=9443)
    parser.add_argument("--certificate", type=Path, help="PEM; with it the bucket is served by TLS as well")
    parser.add_argument("--certificate-key", type=Path)
    parser.add_argument(
        "--admin-from",
        action="append",
        metavar="CIDR",
        help="network that may use /_faults and its neighbours; loopback always may",
    )
    return parser.parse_args()


def _stop(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    """Serve until SIGTERM."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _stop)
    tls = None
    if arguments.certificate:
        tls = Tls(arguments.certificate, arguments.certificate_key, arguments.tls_port)
    server = OssServer(
        arguments.data,
        arguments.bucket,
        arguments.access_key_id,
        arguments.access_key_secret_file.read_text().strip(),
        arguments.region,
        arguments.host,
        arguments.port,
        ["127.0.0.0/8", *(arguments.admin_from or [])],
        tls,
    )
    print(
        f"bucket {arguments.bucket} on {arguments.host}:{server.port}, CRC-64 by {IMPLEMENTATION}", flush=True
    )
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()


if __name__ == "__main__":
    main()
