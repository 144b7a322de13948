"""Stands where the Trivy adapter stands: healthy, and with nothing to scan."""

from .web import Request, Response, Server, heed_sigterm, setup_logging


def main() -> None:
    """Serve for ever."""
    setup_logging()
    heed_sigterm()

    def answer(request: Request) -> Response:
        return Response.of("healthy")

    Server(8080, answer).serve_forever()


if __name__ == "__main__":
    main()
