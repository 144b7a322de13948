"""What the cloud's API answers when it does not do what it was asked, in the operator's words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.errors import HarborHaError

WHERE = "Alibaba Cloud"


class CloudSilent(HarborHaError):
    """The API gave no answer in time; what was asked may have been accepted, and only a look tells."""


class CloudRefused(HarborHaError):
    """The API answered with an error.

    Attributes:
        code: the API's own name of it.
    """

    def __init__(self, what: str, code: str, *, meaning: str = "", remedy: str = "") -> None:
        self.code = code
        HarborHaError.__init__(self, what, where=WHERE, meaning=meaning, remedy=remedy)


@dataclass(frozen=True)
class Sentence:
    """How a family of error codes is told. `{action}` is the RAM action, `{region}` the site's."""

    begins: tuple[str, ...]
    what: str
    remedy: str = ""


# The first that fits; a code is a name with parts after dots, of which the first say most.
_SENTENCES = (
    Sentence(
        ("Forbidden.RAM", "NoPermission", "Forbidden.NoPermission", "ImplicitDeny", "ExplicitDeny"),
        "RAM does not allow {action}.",
        "Grant {action} to the AccessKey's user or to the role (docs/security.md has the policies).",
    ),
    Sentence(
        ("InvalidAccessKeyId", "SignatureDoesNotMatch", "IncompleteSignature", "InvalidSecurityToken"),
        "{action} was not accepted: the AccessKey does not exist, is disabled, or its secret is another.",
        "Correct aliyun.access_key_id and access_key_secret in the site file and apply it.",
    ),
    Sentence(
        ("InvalidTimeStamp", "InvalidTimestamp", "IllegalTimestamp"),
        "{action} was not accepted: the clock of the orchestrator is wrong.",
        "Set its clock (timedatectl) and run it again.",
    ),
    Sentence(
        ("InvalidRegionId", "RegionId.", "InvalidOperation.InvalidRegion"),
        "{action}: the API knows no region {region}, or the endpoint is another region's.",
        "Correct aliyun.region, and the endpoint if one is set, in the site file and apply it.",
    ),
    Sentence(
        (
            "InvalidInstanceId",
            "InvalidLoadBalancerId",
            "ResourceNotFound",
            "InvalidListener",
            "ListenerNotFound",
        ),
        "{action}: there is no such thing in {region} ({code}).",
        "Compare instance_id of nodes and balancer, balancer.port and aliyun.region with the console. A missing "
        "listener is made by bootstrap where balancer.create_listener is set.",
    ),
    Sentence(
        ("InvalidVServerGroup", "InvalidServerGroup", "VServerGroup"),
        "{action}: there is no such server group in {region} ({code}).",
        "Compare balancer.server_group with the console.",
    ),
    Sentence(
        ("IncorrectInstanceStatus", "IncorrectStatus", "InvalidOperation.Conflict"),
        "{action}: the instance or group is in a state that does not allow it ({code}).",
        "Look at it in the console and run it again.",
    ),
    Sentence(
        ("Throttling",),
        "{action}: too many calls of this account; the API went on refusing it until the time was over.",
        "Find what else calls the API so often, and run it again.",
    ),
)

# Not done, and a moment later it may be: too many calls, or the thing is being changed just now.
_SOON = (
    "Throttling",
    "ServiceUnavailable",
    "SystemBusy",
    "ServiceIsConfiguring",
    "BackendServer.configuring",
)
_SOON_TOO = ("OperationFailed.TokenIsProcessing", "Conflict.Lock", "IncorrectStatus.", "InternalError")

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,79}")


def passes_soon(code: str) -> bool:
    """Whether the same call may succeed a moment later; the one that was refused had no effect."""
    return code.startswith((*_SOON, *_SOON_TOO))


def refusal(action: str, region: str, error: Mapping[str, Any]) -> CloudRefused:
    """Put an error of the API into words. Its message is not passed on: it repeats parts of the request.

    Args:
        action: as RAM names it, `ecs:StopInstance`.
        region: the site's.
        error: `code` and `status`, of the SDK's exception.
    """
    said = str(error.get("code") or "")
    code = said if _CODE.fullmatch(said) else "another answer"
    for sentence in _SENTENCES:
        if code.startswith(sentence.begins):
            words = {"action": action, "region": region, "code": code}
            return CloudRefused(sentence.what.format(**words), code, remedy=sentence.remedy.format(**words))
    return CloudRefused(
        f"{action} was answered with {code} (HTTP {error.get('status') or 'without status'}).",
        code,
        remedy="Look the code up in the API's documentation; nothing is known to have been done.",
    )
