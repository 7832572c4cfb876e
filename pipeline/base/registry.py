"""Named parts (models, losses, optimisers, ...): a name is one line, its options a signature.

A registry maps a name to `module:function`. The function's keyword-only parameters, with their
annotations and defaults, *are* its options in `params.yaml`: nothing is declared twice, and
nothing heavy is imported before the name is used.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, ClassVar, TypeVar, cast, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PydanticSchemaGenerationError,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pipeline.base.errors import join_names
from pipeline.base.light_modules import LightModule, read_module, read_outline

FEW, MANY = 15, 40  # names in a message


def _refuse_url(value: Any) -> Any:
    if isinstance(value, str) and (not value or "://" in value):
        raise ValueError(f"expected a file of this machine, found {value!r}" + "; download it first" * bool(value))
    return value


def _expand_home(path: Path) -> Path:
    """With `~` written out, where that is somebody's home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path  # who reads it finds nothing there


# A path is written as text: the one place where types are lax.
FilePath = Annotated[Path, Field(strict=False), BeforeValidator(_refuse_url), AfterValidator(_expand_home)]


# Keys of `params.yaml` by their names of before, which are refused with today's.
RENAMED_KEYS = {"of": "metric", "says": "text", "schedule": "lr_schedule", "trains": "trainable"}

# Of an option that came after caches were sealed: unset it stands in no card, so that these stay readable.
UNSET = object()


class Section(BaseModel):
    """One frozen mapping of `params.yaml` that refuses keys it does not know."""

    implied_keys: ClassVar[frozenset[str]] = frozenset()  # keys that the user does not write

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            raise PydanticCustomError("mapping", "expected a mapping of keys")
        for key in values if cls.model_config.get("extra") == "forbid" else ():
            if key not in cls.model_fields:
                raise PydanticCustomError("unknown_key", "{text}", {"text": cls._describe_unknown_key(key)})
        return values

    @classmethod
    def _describe_unknown_key(cls, key: object) -> str:
        renamed = RENAMED_KEYS.get(str(key))
        if renamed in cls.model_fields:
            return f"unknown key {key!r}: it is now called {renamed!r}; rename it"
        return describe_unknown("key", key, cls.model_fields.keys() - cls.implied_keys)

    def extra_options(self, base: type[Section]) -> dict[str, Any]:
        """The values of the fields that `base` does not have: what the named function takes."""
        keys = (*type(self).model_fields, *(self.model_extra or ()))
        return {key: getattr(self, key) for key in keys if key not in base.model_fields}

    @property
    def is_unchecked(self) -> bool:
        """Whether the function that says which options there are is not here."""
        return self.model_extra is not None


S = TypeVar("S", bound=Section)


class NestedError(ValueError):
    """Several (location, message) pairs from a mapping that was validated by its own model."""

    def __init__(self, errors: list[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__(str(errors))
        self.errors = errors


class AbsentError(ValueError):
    """A name's function is in a module that is not here, or cannot be imported: no mistake for who does not use it."""


@dataclass(frozen=True)
class Registry:
    """The names of one kind of part.

    Attributes:
        kind: what the parts are, as error messages call them ("model").
        entries: name -> "module:function"; the function's docstring and options live there.
        resolve: finds functions for names that are not listed (`torchvision:resnet18`);
            returns None for a name that it does not know either.
        outline: a function of the same options as that of an unlisted name, as far as these keys go, found without
            importing what it needs; None: not without.
    """

    kind: str
    entries: Mapping[str, str]
    resolve: Callable[[str], Callable[..., Any] | None] = lambda _: None
    outline: Callable[[str, Collection[str]], Callable[..., Any] | None] = lambda _name, _keys: None

    def import_function(self, name: str) -> Callable[..., Any]:
        """Import the function that a name stands for.

        Raises:
            AbsentError: it cannot be imported here.
            ValueError: nobody knows the name; the message lists those known.
        """
        if name in self.entries:
            return import_object(self.entries[name])
        found = self.resolve(name)
        if found is None:
            raise ValueError(describe_unknown(self.kind, name, self.entries))
        return found

    def import_part(self, name: str) -> ModuleType:
        """Import the module of a name's function, with what it says beside it; see `import_function`."""
        return sys.modules[self.import_function(name).__module__]

    def read_part(self, name: str) -> ModuleType | LightModule:
        """What the module of a listed name says beside its function, with no more imported than that needs."""
        return read_module(self.entries[name].partition(":")[0])

    def read_outline(self, name: str, keys: Collection[str]) -> Callable[..., Any]:
        """A name's function for its signature, which has these keys at least where it has them at all.

        Raises: see `import_function`.
        """
        if name in self.entries:
            return read_outline(self.entries[name])
        return self.outline(name, keys) or self.import_function(name)

    def find_module(self, name: str) -> str | None:
        """The module that holds a listed name's function (the stage graph depends on its file)."""
        return self.entries[name].partition(":")[0] if name in self.entries else None

    def parse(self, value: Any, *, tag: str, base: type[S]) -> S:
        """Validate a mapping such as `{name: mlp, widths: [64]}` against the function it names.

        The options of a function that is not here stay as they are (`Section.is_unchecked`): who calls it refuses.

        Args:
            value: the mapping as it stands in `params.yaml`.
            tag: the key that holds the name.
            base: the section with the keys that every part of this kind has, `tag` included.

        Raises:
            NestedError: with the place of each mistake inside the mapping.
        """
        if isinstance(value, base):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get(tag), str):
            raise NestedError([((tag,), f"missing; expected the name of a {self.kind}")])
        try:
            function = self.read_outline(value[tag], value.keys() - base.model_fields.keys())
            made: S = validate_nested(create_options_section(function, base), dict(value))
        except NestedError:
            raise
        except AbsentError:
            made = validate_nested(create_unchecked_section(base), dict(value))
        except (ValueError, NameError, TypeError, PydanticSchemaGenerationError) as error:
            # The latter three: a user's own function with annotations that say nothing to us.
            raise NestedError([((tag,), str(error).partition("\n")[0])]) from None
        return made


def validate_nested(section: type[S], value: Any) -> S:
    """Validate a section inside a value that is validated by hand.

    Raises:
        NestedError: with the place of each mistake inside it.
    """
    try:
        return section.model_validate(value)
    except ValidationError as error:
        raise NestedError(list(flatten_errors(error))) from None


@cache
def create_options_section(function: Callable[..., Any], base: type[S]) -> type[S]:
    """A section with `base`'s keys and one key for each keyword-only parameter of `function`."""
    plain = getattr(function, "func", function)  # a partial has neither annotations nor globals
    options = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in base.model_fields
    }
    # Only the options' annotations are evaluated: the others may name types that are not imported.
    annotations = {name: plain.__annotations__.get(name, Any) for name in options}
    hints = get_type_hints(SimpleNamespace(__annotations__=annotations), plain.__globals__, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], ... if option.default is option.empty else option.default)
        for name, option in options.items()
    }
    return create_model(f"{base.__name__}Options", __base__=base, **fields)


@cache
def create_unchecked_section(base: type[S]) -> type[S]:
    """A section with `base`'s keys and any others."""
    bases: Any = (base, _Anything)
    return cast("type[S]", create_model(f"{base.__name__}Unchecked", __base__=bases))


class _Anything(Section):
    model_config = ConfigDict(extra="allow")


def import_object(path: str) -> Callable[..., Any]:
    """Import the object at `module:attribute`."""
    module, _, attribute = path.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return function


def describe_unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Return the message for an unknown name: the known ones, of many the nearest first."""
    names = sorted(known)
    if len(names) > FEW:
        near = difflib.get_close_matches(str(name), names, n=3)
        meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        nearest_first = [*near, *(other for other in names if other not in near)]
        return f"unknown {kind} {name!r}: {meant}expected one of {join_names(nearest_first, most=MANY)}"
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}: expected one of {', '.join(names) or '(none)'}{hint}"


def flatten_errors(error: ValidationError) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Yield each mistake of a validation as (place, message), those of nested validations too."""
    for item in error.errors(include_url=False):
        nested = item.get("ctx", {}).get("error")
        if isinstance(nested, NestedError):
            yield from (((*item["loc"], *place), text) for place, text in nested.errors)
        elif item["type"] in ("unknown_key", "mapping", "value_error"):
            yield item["loc"], item["msg"].removeprefix("Value error, ")
        elif item["type"] == "too_short":
            yield item["loc"], f"expected at least {item['ctx']['min_length']} in the list, found {list(item['input'])}"
        elif item["type"] == "missing":
            yield item["loc"], "missing; this key is required"
        else:
            expected = item["msg"].removeprefix("Input should be ").removeprefix("Input should have ")
            expected = {"a valid tuple": "a list, such as [64]", "a valid dictionary": "a mapping"}.get(
                expected, expected
            )
            yield item["loc"], f"expected {expected}, found {item['input']!r}"
