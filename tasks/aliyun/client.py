"""One call of Alibaba Cloud's API: signed and sent by the SDK, with a time limit, its errors in our words."""

import functools
import importlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from blocks import AliyunAccount, HarborSite
from blocks.aliyun_rules import INSTALL
from tasks.aliyun.errors import WHERE, CloudRefused, CloudSilent, passes_soon, refusal
from tasks.errors import HarborHaError

# Of one try; the API answers in a tenth of a second.
_CONNECT_S = 2.0
_READ_S = 5.0
# Between two tries: doubled each time, and never the same for two orchestrators.
_PAUSE_S = 0.4
_LONGEST_PAUSE_S = 5.0


class CloudUnusable(HarborHaError):
    """The API cannot be called at all: no SDK, no account in the site file, no credentials."""


@dataclass(frozen=True)
class Product:
    """One of the cloud's APIs.

    Attributes:
        ram: how RAM's actions begin.
        sdk: the SDK's package.
        endpoint: the key of the account that has its endpoint.
    """

    ram: str
    sdk: str
    endpoint: str


ECS = Product("ecs", "alibabacloud_ecs20140526", "ecs_endpoint")
CLB = Product("slb", "alibabacloud_slb20140515", "balancer_endpoint")
NLB = Product("nlb", "alibabacloud_nlb20220430", "balancer_endpoint")


class Cloud:
    """One API of the cloud, as a site's account may use it.

    Args:
        site: whose account.
        product: which API.

    Raises:
        CloudUnusable: the SDK is not installed, or the site file has no account.
    """

    def __init__(self, site: HarborSite, product: Product) -> None:
        if site.aliyun is None:
            raise CloudUnusable(
                "The site file has no section `aliyun`.",
                where=WHERE,
                remedy="Add it and apply the site file.",
            )
        self.region = site.aliyun.region
        self._product = product
        try:
            # Half a second, and nobody else pays for it.
            self._models = importlib.import_module(f"{product.sdk}.models")
            self._client = _client(product, *_access(site.aliyun, product))
        except ImportError as error:
            raise CloudUnusable(
                f"The SDK {product.sdk} is not installed.", where=WHERE, remedy=f"Install it {INSTALL}"
            ) from error
        except Exception as error:
            # The SDK looks for credentials when it is made; what it says of them is not passed on.
            raise _no_credentials(error) from None

    def call(self, action: str, deadline: float, *, again: bool = True, **fields: Any) -> dict[str, Any]:
        """Call the API until it answers; what it refuses for now is asked again, with growing pauses.

        Args:
            action: such as `StopInstance`.
            deadline: by `time.monotonic()`.
            again: a call without an answer is repeated: it reads, or asks for a state and not for a change.
            fields: the request's, as the SDK names them.

        Raises:
            CloudRefused: the API said no.
            CloudSilent: no answer, or none in time; the call may have been accepted.
            CloudUnusable: there are no credentials.
        """
        name, pause = f"{self._product.ram}:{action}", _PAUSE_S
        method = _method(self._client, action)
        request = getattr(self._models, f"{action}Request")(**_wrapped(self._models, action, fields))
        while True:
            wait = pause * random.uniform(0.75, 1.25)
            try:
                return self._once(name, method, request, deadline)
            except (CloudRefused, CloudSilent) as error:
                repeats = passes_soon(error.code) if isinstance(error, CloudRefused) else again
                if not repeats or time.monotonic() + wait >= deadline:
                    raise
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _once(self, name: str, method: Callable[..., Any], request: Any, deadline: float) -> dict[str, Any]:
        left = deadline - time.monotonic()
        if left <= 0:
            raise CloudSilent(f"{name}: the time is over.", where=WHERE)
        # In the SDK's unit, milliseconds; it repeats nothing by itself unless told to.
        limits = {
            "connect_timeout": max(1, int(1000 * min(_CONNECT_S, left))),
            "read_timeout": max(1, int(1000 * min(_READ_S, left))),
        }
        runtime = importlib.import_module("darabonba.runtime").RuntimeOptions(**limits)
        try:
            body = method(request, runtime).body.to_map()
        except Exception as error:
            # Without its cause: a traceback would show the cloud's text, which repeats the request.
            raise self._told(name, error) from None
        if not isinstance(body, dict):
            raise CloudSilent(f"{name} was answered with something else than an object.", where=WHERE)
        return body

    def _told(self, name: str, error: Exception) -> HarborHaError:
        code = getattr(error, "code", None)
        if code is not None and getattr(error, "status_code", None) is not None:
            return refusal(name, self.region, {"code": code, "status": error.status_code})  # type: ignore[attr-defined]
        inner = getattr(error, "inner_exception", error)
        if "redential" in type(inner).__name__:
            return _no_credentials(error)
        # The SDK's texts hold addresses and parts of the request.
        return CloudSilent(
            f"{name} got no answer from {self._client._endpoint} ({type(inner).__name__}).",
            where=WHERE,
            meaning="Whether it was accepted is not known.",
            remedy="Look whether the orchestrator reaches that address (aliyun.*_endpoint; a VPC has one of its own).",
        )


def _access(account: AliyunAccount, product: Product) -> tuple[str, str | None, str | None, str | None]:
    secret = account.access_key_secret
    return (
        account.region,
        getattr(account, product.endpoint),
        account.access_key_id,
        None if secret is None else secret.get_secret_value(),
    )


@functools.lru_cache(maxsize=32)
def _client(product: Product, region: str, endpoint: str | None, key: str | None, secret: str | None) -> Any:
    """Make the SDK's client once: with a RAM role each new one would fetch its credentials anew."""
    models = importlib.import_module("alibabacloud_tea_openapi.utils_models")
    scheme, _, host = (endpoint or "").rpartition("://")
    if key and secret:
        credential = _credential(type="access_key", access_key_id=key, access_key_secret=secret)
    else:
        credential = _credential()
    config = models.Config(
        credential=credential,
        region_id=region,
        protocol=(scheme or "https").upper(),
        endpoint=host.rstrip("/") or None,
    )
    return importlib.import_module(f"{product.sdk}.client").Client(config)


def _credential(**fields: str) -> Any:
    client = importlib.import_module("alibabacloud_credentials.client").Client
    if not fields:
        return client()
    return client(importlib.import_module("alibabacloud_credentials.models").Config(**fields))


def _no_credentials(error: Exception) -> CloudUnusable:
    return CloudUnusable(
        f"There are no credentials for the API ({type(error).__name__}).",
        where=WHERE,
        remedy="Set aliyun.access_key_id and access_key_secret, or give the orchestrator's ECS a RAM role.",
    )


def _method(client: Any, action: str) -> Callable[..., Any]:
    """Find the SDK's method of an action: `StopInstance` is `stop_instance_with_options`."""
    wanted = f"{action}withoptions".lower()
    return next(getattr(client, name) for name in dir(client) if name.replace("_", "") == wanted)  # type: ignore[no-any-return]


def _wrapped(models: Any, action: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Make the SDK's own objects of a list of mappings: `Servers` of `AddServersToServerGroup` and the like."""
    return {
        name: [getattr(models, f"{action}Request{name.title()}")(**item) for item in value]
        if isinstance(value, list) and value and isinstance(value[0], dict)
        else value
        for name, value in fields.items()
    }
