"""The documentation names every key, with the defaults and meanings that the Blocks have."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from blocks import BLOCKS, HarborSite, Role

TEXT = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
ROWS = {
    (section.split("`")[0], key): (default, meaning)
    for section in re.split(r"^### `", TEXT, flags=re.MULTILINE)[1:]
    for key, default, meaning in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", section, re.MULTILINE)
}
SECTIONS = {
    "SshHost": "nodes.NAME",
    "PostgresPair": "postgres",
    "Role": "postgres.ROLE",
    "HarborRelease": "harbor",
    "RedisServer": "redis",
    "NasVolume": "nas",
    "LoadBalancer": "balancer",
    "OssBucket": "oss",
    "AliyunAccount": "aliyun",
    "DockerOptions": "docker",
    "FailoverPolicy": "failover",
    "BackupPolicy": "backup",
}


@pytest.mark.parametrize(
    "model", [*(b for b in BLOCKS if b is not HarborSite), Role], ids=lambda m: m.__name__
)
def test_every_key_is_documented_as_it_is(model: type[BaseModel]) -> None:
    section = SECTIONS[model.__name__]
    fields = {name: field for name, field in model.model_fields.items() if name != "name"}
    assert {key for place, key in ROWS if place == section} == set(fields)
    for name, field in fields.items():
        default, meaning = ROWS[section, name]
        assert meaning.replace("\\|", "|") == field.description, name
        if field.is_required():
            assert default == "required", name
            continue
        value = field.get_default(call_default_factory=True)
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        assert default == ("—" if value in (None, []) else f"`{shown}`"), name
