"""Prefect's REST API as the environment's settings describe it."""

import random
import ssl
import time
from typing import Any

import httpx
from prefect.settings import get_current_settings

# In seconds; each is varied by half, so that two clients do not meet again.
BUSY_PAUSES_S = (0.1, 0.2, 0.5, 1.0)


class PrefectAddressMissing(ValueError):
    """PREFECT_API_URL is not set: without it Prefect would start a server of its own for each command."""

    def __init__(self) -> None:
        super().__init__("PREFECT_API_URL is not set")


def client_options(timeout: float) -> dict[str, Any]:
    """Return the keywords for an httpx client: address, credentials, certificates to trust, time limit.

    `timeout` is in seconds. Raises PrefectAddressMissing.
    """
    api = get_current_settings().api
    if not api.url:
        raise PrefectAddressMissing
    options: dict[str, Any] = {"base_url": api.url, "verify": _trusted(), "timeout": timeout}
    if api.auth_string is not None:
        user, _, password = api.auth_string.get_secret_value().partition(":")
        options["auth"] = httpx.BasicAuth(user, password)
    elif api.key is not None:
        options["headers"] = {"Authorization": f"Bearer {api.key.get_secret_value()}"}
    return options


def prefect_api(timeout: float) -> httpx.Client:
    """Return a client for the API, for a few calls. Raises PrefectAddressMissing."""
    options = client_options(timeout)
    return httpx.Client(transport=PatientTransport(verify=options.pop("verify")), **options)


class PatientTransport(httpx.HTTPTransport):
    """Sends a request again when the server is busy.

    With SQLite underneath, Prefect answers 503 at once when two requests write at the same time, and has then
    done nothing; its own client tries again too.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, up to five times within about two seconds."""
        for pause in BUSY_PAUSES_S:
            answer = super().handle_request(request)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return answer
            answer.close()
            time.sleep(pause * random.uniform(0.5, 1.5))
        return super().handle_request(request)


def _trusted() -> bool | ssl.SSLContext:
    api = get_current_settings().api
    # To load the certificates of all authorities takes 50 ms, which is for nothing where there is no TLS.
    if api.tls_insecure_skip_verify or str(api.url).startswith("http://"):
        return False
    return ssl.create_default_context(cafile=api.ssl_cert_file) if api.ssl_cert_file else True
