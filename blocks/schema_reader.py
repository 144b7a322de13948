"""Plain data held against the Blocks' fields: unknown keys, missing keys, wrong types, all at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from blocks.problems import Problem
from blocks.references import ReferenceBroken, References
from blocks.suggestions import did_you_mean

MISSING = object()


@dataclass
class Reading:
    """What was found while the data was held against the fields.

    Attributes:
        values: dotted path to value, for every leaf that is right by itself.
        inline_secrets: paths of secrets that stand in the file itself.
    """

    references: References
    problems: list[Problem] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    inline_secrets: list[str] = field(default_factory=list)

    def problem(self, path: str, what: str, right: str) -> None:
        """Note a mistake."""
        self.problems.append(Problem(path or "the file", what, right))


def read_model(model: type[BaseModel], data: Any, path: str, reading: Reading) -> dict[str, Any]:
    """Given data for a model, return what is right of it as plain keywords; mistakes go into `reading`.

    A list of models is written as a mapping from `name` to the other fields: a site's nodes have names, and
    a name cannot be there twice.
    """
    if not isinstance(data, Mapping):
        reading.problem(path, f"must be a mapping, not {_kind(data)}", f"keys such as {_some_keys(model)}")
        return {}
    for key in data:
        if key not in model.model_fields:
            _unknown(key, model, path, reading)
    right: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        value = _read_field(info, data.get(name, MISSING), f"{path}.{name}" if path else name, reading)
        if value is not MISSING:
            right[name] = value
    return right


def _read_field(info: FieldInfo, value: Any, path: str, reading: Reading) -> Any:
    part = _model_of(info.annotation)
    listed = _listed_model_of(info.annotation)
    if value is MISSING and info.is_required():
        reading.problem(path, "is missing", info.description or "add it")
        return MISSING
    if listed is not None:
        return _read_named(listed, value, path, reading)
    if part is not None and value is MISSING and info.default is not None:
        value = {}
    if value is MISSING:
        reading.values[path] = info.get_default(call_default_factory=True)
        return MISSING
    if part is not None:
        if value is None and info.default is None and not info.is_required():
            return MISSING
        return read_model(part, value, path, reading)
    return _read_leaf(info, value, path, reading)


def _read_named(model: type[BaseModel], data: Any, path: str, reading: Reading) -> list[dict[str, Any]]:
    if not isinstance(data, Mapping) or not data:
        reading.problem(
            path, f"must be a mapping of names, not {_kind(data)}", "`node-a:` with its fields below it"
        )
        return []
    found = []
    for name, fields in data.items():
        here = f"{path}.{name}"
        if isinstance(fields, Mapping) and "name" in fields:
            reading.problem(f"{here}.name", "is given by the key above already", "remove it")
            fields = {key: value for key, value in fields.items() if key != "name"}
        if not isinstance(fields, Mapping):
            reading.problem(
                here, f"must be a mapping, not {_kind(fields)}", f"keys such as {_some_keys(model)}"
            )
            continue
        found.append(read_model(model, {"name": name, **fields}, here, reading))
    return found


def _read_leaf(info: FieldInfo, value: Any, path: str, reading: Reading) -> Any:
    secret = SecretStr in (info.annotation, *get_args(info.annotation))
    textual = secret or str in (info.annotation, *get_args(info.annotation))
    if textual and isinstance(value, Mapping):
        try:
            value = reading.references.follow(value, secret=secret)
        except ReferenceBroken as broken:
            reading.problem(path, broken.what, broken.right)
            return MISSING
    elif secret and isinstance(value, str):
        reading.inline_secrets.append(path)
    annotation: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    try:
        checked = TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        what, right = _explain(error, value, info, secret)
        reading.problem(path, what, right)
        return MISSING
    if isinstance(checked, str | SecretStr) and not _text(checked).strip():
        reading.problem(path, "is empty", info.description or "a text")
        return MISSING
    reading.values[path] = checked
    return checked


def _explain(error: ValidationError, value: Any, info: FieldInfo, secret: bool) -> tuple[str, str]:
    first = error.errors(include_input=False, include_url=False, include_context=True)[0]
    shown = "" if secret or not isinstance(value, str | int | float) else f" {value}"
    choices = _choices(info.annotation)
    if choices:
        guess = did_you_mean(str(value), choices)
        return f"{value} is not a choice", f"{' | '.join(choices)}" + (
            f"; did you mean {guess}?" if guess else ""
        )
    if first["type"] == "string_type" and isinstance(value, bool | int | float):
        return f"must be text, not {_kind(value)}{shown}", "write it in quotes"
    if first["type"] in ("list_type", "is_instance_of") or list in (get_origin(info.annotation),):
        return f"must be a list of texts, not {_kind(value)}", f"[…]: {info.description or 'a list'}"
    if first["type"].endswith(("_equal", "_than")):
        return f"{value} is out of range", first["msg"].removeprefix("Input should be ")
    wanted = first["msg"].removeprefix("Input should be ").replace("valid ", "")
    return f"must be {wanted}, not {_kind(value)}{shown}", info.description or wanted


def _unknown(key: str, model: type[BaseModel], path: str, reading: Reading) -> None:
    guess = did_you_mean(key, model.model_fields)
    known = ", ".join(name for name in model.model_fields if name != "name" or not path)
    right = f"did you mean {guess}?" if guess else f"one of {known}"
    reading.problem(f"{path}.{key}" if path else key, "is not a known key", right)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    for option in (
        annotation,
        *(get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()),
    ):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _listed_model_of(annotation: Any) -> type[BaseModel] | None:
    return _model_of(get_args(annotation)[0]) if get_origin(annotation) is list else None


def _choices(annotation: Any) -> tuple[str, ...]:
    return tuple(str(choice) for choice in get_args(annotation)) if get_origin(annotation) is Literal else ()


def _text(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _some_keys(model: type[BaseModel]) -> str:
    return ", ".join(name for name in model.model_fields if name != "name")


def _kind(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "yes or no"
    if isinstance(value, int | float):
        return "a number"
    names: dict[str, str] = {"str": "a text", "list": "a list", "dict": "a mapping"}
    return names.get(type(value).__name__, f"a {type(value).__name__}")
