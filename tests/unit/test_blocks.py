"""Every Block is complete in the Prefect UI, and no secret shows where it should not."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from prefect.blocks.core import Block
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

import blocks
from blocks import BLOCKS, HarborSite, Role
from blocks.site_file import read_site_file
from tests.unit.site_on_disk import NOW, correct_site


def every_field() -> Iterator[tuple[str, FieldInfo]]:
    models: tuple[type[BaseModel], ...] = (*BLOCKS, Role)
    for model in models:
        for name, field in model.model_fields.items():
            yield f"{model.__name__}.{name}", field


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.__name__)
def test_a_block_has_a_name_a_slug_a_description_and_an_example(block: type[Block]) -> None:
    assert (block._block_type_name or "").startswith("Harbor HA: ")
    assert (block._block_type_slug or "").startswith("harbor-ha-")
    assert block.get_description()
    assert block.get_code_example()


@pytest.mark.parametrize(
    ("path", "field"), list(every_field()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_field_has_a_title_and_a_description(path: str, field: FieldInfo) -> None:
    assert field.title, path
    assert field.description, path
    assert field.description[0] != " "


@pytest.mark.parametrize(
    ("path", "field"), list(every_field()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_is_secret_by_its_name_is_hidden(path: str, field: FieldInfo) -> None:
    name = path.rpartition(".")[2]
    sounds_secret = any(
        word in name
        for word in ("password", "passphrase", "private", "secret", "certificate_key", "identity")
    )
    assert sounds_secret == ("SecretStr" in str(field.annotation)), path


def test_every_block_class_of_the_package_is_registered() -> None:
    defined = {
        thing
        for thing in vars(blocks).values()
        if isinstance(thing, type) and issubclass(thing, Block) and thing is not Block
    }
    assert defined == set(BLOCKS)


def test_slugs_and_names_are_used_once() -> None:
    assert len({block._block_type_slug for block in BLOCKS}) == len(BLOCKS)
    assert len({block._block_type_name for block in BLOCKS}) == len(BLOCKS)


def test_a_site_shows_no_secret_when_it_is_printed_or_dumped(tmp_path: Path) -> None:
    site = read_site_file(correct_site(tmp_path).write(), environ={}, now=NOW)
    shown = f"{site!r} {site} {site.model_dump()} {site.model_dump_json()} {site.nodes[0]!r}"
    for secret in ("Harbor-secret.1", "Redis-secret.1", "Oss-secret-1", "Harbor12345", "PRIVATE KEY"):
        assert secret not in shown


def test_an_unknown_node_is_a_key_error(tmp_path: Path) -> None:
    site = read_site_file(correct_site(tmp_path).write(), environ={}, now=NOW)
    assert isinstance(site, HarborSite)
    with pytest.raises(KeyError):
        site.node("node-z")


def test_the_secrets_are_the_ones_prefect_encrypts() -> None:
    secret_fields = set(HarborSite.model_json_schema()["secret_fields"])
    assert {"nodes.private_key", "postgres.application.password", "harbor.certificate_key"} <= secret_fields
    assert SecretStr("x").get_secret_value() == "x"
    assert isinstance(NOW, datetime)
