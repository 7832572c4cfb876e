"""A file of outputs from elsewhere -> a cache like our own."""

from __future__ import annotations

from stages import cli, options


def create(
    to: options.CreateAtArgument,
    source: options.SourceOption,
    teacher: options.ForeignTeacherOption,
    data: options.CreateDataOption,
    field: options.FieldOption = "logits",
    values: options.ValuesOption = None,
    floor: options.FloorOption = None,
    classes: options.ClassesOption = None,
    sha256: options.WeightsDigestOption = None,
    store: options.StoreOption = "zarr",
    dtype: options.DtypeOption = "float16",
    codec: options.CodecOption = "none",
    top_k: options.TopKOption = None,
    temperature: options.TemperatureOption = None,
    batch: options.BatchOption = 512,
    terms: options.TermsOption = None,
) -> None:
    """Seal a foreign teacher's outputs (another framework, an API) in a cache, checked as our own.

    Row i is of sample i of the data set's images.npy, column c of class c of its dataset.json, or as --classes says.
    Prints how often the argmax is right: near chance, rows or columns stand in another order.
    """
    from pipeline import runs

    cli.show(runs.create_cache(
        to, source, teacher, data, field=field, values=values, floor=floor, classes=classes, sha256=sha256, store=store,
        dtype=dtype, codec=codec, top_k=top_k, temperature=temperature, batch=batch, terms=cli.read_terms(terms),
    ))  # fmt: skip


if __name__ == "__main__":
    cli.main(create)
