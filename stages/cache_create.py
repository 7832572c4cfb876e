"""A file of outputs from elsewhere -> a cache like our own."""

from __future__ import annotations

from stages import cli, options


def create(
    to: options.CreateAt,
    source: options.Source,
    teacher: options.ForeignTeacher,
    data: options.CreateData,
    field: options.Field = "logits",
    values: options.Values = None,
    floor: options.Floor = None,
    classes: options.Classes = None,
    sha256: options.WeightsDigest = None,
    store: options.Store = "zarr",
    dtype: options.Dtype = "float16",
    codec: options.Codec = "none",
    top_k: options.TopK = None,
    temperature: options.Temperature = None,
    batch: options.Batch = 512,
) -> None:
    """Seal a foreign teacher's outputs (another framework, an API) in a cache, checked as our own.

    Row i is of sample i of the data set's images.npy, column c of class c of its dataset.json, or as --classes says.
    Prints how often the argmax is right: near chance, rows or columns stand in another order.
    """
    from pipeline import runs

    made = runs.create_cache(
        to, source, teacher, data, field=field, values=values, floor=floor, classes=classes, sha256=sha256,
        store=store, dtype=dtype, codec=codec, top_k=top_k, temperature=temperature, batch=batch,
    )  # fmt: skip
    cli.show(made)


if __name__ == "__main__":
    cli.main(create)
