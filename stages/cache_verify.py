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
    sample: options.SampleOption = None,
    seed: options.SampleSeedOption = None,
    signed_by: options.SignedByOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Recompute every digest of a cache, and name each file and chunk that is damaged."""
    from pipeline import runs

    share = cli.read_sample(sample, seed, without={"--repair": repair is not None, "--restart": restart})
    url = cli.storage_options(storage)
    found = runs.verify_cache(cache, url, restart=restart, sample=share, seed=seed, signed_by=signed_by)
    cli.show(found, as_json=as_json)
    if repair is None:
        found.refuse_damage()
    elif not (as_json and found.values["whole"]):
        cli.show(runs.repair_cache(found, repair, params, device))


if __name__ == "__main__":
    cli.main(verify)
