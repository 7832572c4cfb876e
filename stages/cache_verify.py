"""A cache -> whether every byte is the one that was sealed; or a repaired copy."""

from __future__ import annotations

from stages import cli, options


def verify(
    cache: options.CacheArgument,
    repair: options.RepairOption = None,
    params: options.ParamsOption = options.PARAMS,
    device: options.DeviceOption = "auto",
    storage: options.StorageOption = None,
    restart: options.RestartOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Recompute every digest of a cache, and name each file and chunk that is damaged."""
    from pipeline import runs

    found = runs.verify_cache(cache, cli.storage_options(storage), restart=restart)
    cli.show(found, as_json=as_json)
    if repair is None:
        found.refuse_damage()
    elif not (as_json and found.values["whole"]):
        cli.show(runs.repair_cache(found, repair, params, device))


if __name__ == "__main__":
    cli.main(verify)
