"""A trained network -> data/cache/<dump>: the command of each field."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from stages import cli, options


def dump_command(field: str, purpose: str) -> Callable[..., Any]:
    """The command `dump-FIELD`.

    Args:
        field: its name.
        purpose: what the command's help says.
    """

    def dump_field(  # Typer reads these annotations: they name `field`, so they are not to be strings
        dump: Annotated[str, typer.Argument(help=f"A name under dumps: in params.yaml, of field {field}.")],
        params: options.ParamsOption = options.PARAMS,
        device: options.DeviceOption = "auto",
    ) -> None:
        from pipeline import runs

        cli.show(runs.make_dump(runs.open_study(params), dump, field, device))

    dump_field.__name__, dump_field.__doc__ = f"dump_{field}", purpose
    return dump_field
