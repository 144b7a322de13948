"""Stands where ChartMuseum stands, up to Harbor 2.7: healthy, and with no charts."""

from .web import Request, Response, Server, heed_sigterm, setup_logging


def main() -> None:
    """Serve for ever."""
    setup_logging()
    heed_sigterm()

    def answer(request: Request) -> Response:
        return Response.of({"healthy": True})

    Server(9999, answer).serve_forever()


if __name__ == "__main__":
    main()
