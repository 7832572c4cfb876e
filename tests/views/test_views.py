from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor
from torch.nn import functional

from pipeline.base.errors import InputError
from pipeline.base.registry import NestedError, Section
from pipeline.cache.manifest import ViewsInfo
from pipeline.views import POLICIES
from pipeline.views.counter_random import bernoulli, philox, random_words, stream_words, uniform_integers
from pipeline.views.crop_flip import crop_flip
from pipeline.views.flip import flip
from pipeline.views.random_resized_crop import draw_boxes, random_resized_crop, resize_boxes
from pipeline.views.view import DRAW, PLAIN, Views

ALL_ONES = 0xFFFFFFFF
AUGMENTING = ["flip", "crop_flip", "random_resized_crop"]
SHAPES = [(1, 8, 8), (3, 8, 8), (3, 9, 14), (1, 12, 7)]  # channels, height, width


def images_of(count: int, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(256, (count, channels, height, width), dtype=torch.uint8, generator=generator)


def words_of(count: int, seed: int = 3, view: int = 0) -> Tensor:
    return random_words(seed, torch.full((count,), view), torch.arange(count))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ALL_ONES] * 4, (ALL_ONES, ALL_ONES), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)  # from the kat_vectors of Random123
def test_philox_gives_the_known_answers(counter: list[int], key: tuple[int, int], expected: list[int]) -> None:
    assert philox(torch.tensor([counter, counter]), key).tolist() == [expected, expected]


def test_a_word_is_the_one_of_its_seed_sample_view_and_stream() -> None:
    seed, sample, view = 0x299F31D0_A4093822, 5 * 2**32 + 7, 3
    found = random_words(seed, torch.tensor([view]), torch.tensor([sample]), count=12)
    for stream in range(3):
        counter = torch.tensor([[7, 5, view, stream]])
        assert torch.equal(found[:, 4 * stream : 4 * stream + 4], philox(counter, (0xA4093822, 0x299F31D0)))


def test_more_words_change_none() -> None:
    views, ids = torch.zeros(5, dtype=torch.int64), torch.arange(5)
    assert [random_words(1, views, ids, count).shape for count in (1, 4, 6)] == [(5, 1), (5, 4), (5, 6)]
    assert torch.equal(random_words(1, views, ids, 6), random_words(1, views, ids, 8)[:, :6])


def test_words_are_all_different_uint32() -> None:
    ids = torch.cat([torch.arange(2000), torch.arange(2000) + 2**32])
    found = torch.cat(
        [random_words(seed, torch.full_like(ids, view), ids) for seed in (0, 1, 2**32) for view in (0, 1)]
    )
    assert found.dtype == torch.int64
    assert 0 <= int(found.min()) < 2**16
    assert 2**32 - 2**16 < int(found.max()) < 2**32
    pairs = found.view(-1, 4)[:, :2]  # of one block, hence 64 random bits
    assert len(torch.unique(pairs[:, 0] << 31 ^ pairs[:, 1])) == len(pairs)


def test_every_bit_of_a_word_is_fair() -> None:
    found = words_of(20_000)
    ones = torch.stack([(found >> bit & 1).double().mean(0) for bit in range(32)])
    assert (ones - 0.5).abs().max() < 5 * 0.5 / 20_000**0.5


def test_below_takes_each_number_as_often() -> None:
    edges = torch.tensor([0, 2**32 - 1])
    assert uniform_integers(edges, 1).tolist() == [0, 0]
    assert uniform_integers(edges, 9).tolist() == [0, 8]
    assert uniform_integers(edges, 2**31).tolist() == [0, 2**31 - 1]
    assert uniform_integers(edges, torch.tensor([5, 7])).tolist() == [0, 6]
    counts = torch.bincount(uniform_integers(words_of(70_000)[:, 5], 7))
    assert chi_square(counts) < 25  # 6 degrees of freedom


def test_chance_is_exact_at_its_ends() -> None:
    edges = torch.tensor([0, 2**31 - 1, 2**31, 2**32 - 1])
    assert bernoulli(edges, 0.0).tolist() == [False] * 4
    assert bernoulli(edges, 0.5).tolist() == [True, True, False, False]
    assert bernoulli(edges, 1.0).tolist() == [True] * 4


def chi_square(counts: Tensor) -> float:
    expected = counts.sum() / counts.numel()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("policy", AUGMENTING)
def test_a_view_depends_on_seed_view_and_sample_alone(policy: str) -> None:
    ids = torch.arange(40) * 2**30  # beyond 2^32
    images, views = images_of(40), Views(policy, 4, 9, {})
    numbers = ids % 3
    whole = views.apply(images, views.words(ids, numbers))
    for rows in (torch.tensor([17]), torch.arange(40).flip(0), torch.arange(0, 40, 3), torch.tensor([5, 5, 39])):
        assert torch.equal(views.apply(images[rows], views.words(ids[rows], numbers[rows])), whole[rows])
    once_an_epoch = views.words(ids, numbers)
    batches = [views.apply(images[start : start + 7], once_an_epoch[start : start + 7]) for start in range(0, 40, 7)]
    assert torch.equal(torch.cat(batches), whole)


@pytest.mark.parametrize("policy", AUGMENTING)
def test_another_seed_view_or_sample_is_another_view(policy: str) -> None:
    ids, view, images = torch.arange(64), torch.zeros(64, dtype=torch.int64), images_of(64)

    def pixels(seed: int, ids: Tensor, view: Tensor) -> Tensor:
        views = Views(policy, 2, seed, {})
        return views.apply(images, views.words(ids, view))

    first = pixels(1, ids, view)
    changed = [
        pixels(2, ids, view),
        pixels(1 + 2**32, ids, view),
        pixels(1, ids + 2**32, view),
        pixels(1, ids, view + 1),
    ]
    for other in changed:
        same = (other == first).flatten(1).all(1).double().mean()
        assert same < (0.75 if policy == "flip" else 0.1)


@pytest.mark.parametrize("policy", ["none", *AUGMENTING])
@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_policy_keeps_shape_and_type_and_its_input(policy: str, count: int, channels_last: bool) -> None:
    images = images_of(count, 3, 9, 14)
    given = images.clone(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    made = POLICIES.import_function(policy)(given, words_of(count))
    assert (made.shape, made.dtype) == (images.shape, torch.uint8)
    assert torch.equal(given, images)
    assert torch.equal(made, POLICIES.import_function(policy)(images, words_of(count)))


GOLDEN = {
    "flip": "f9f67bcf2404c20d",
    "crop_flip": "0b991fd492272b40",
    "random_resized_crop": "2e2f7fbd7a7bd908",
}


@pytest.mark.parametrize("policy", AUGMENTING)
def test_pixels_never_change(policy: str) -> None:
    # Caches hold a teacher's outputs of these very pixels: with other ones, every cache with views is worthless.
    images = (torch.arange(16 * 3 * 32 * 24) * 2654435761 >> 13 & 255).to(torch.uint8).view(16, 3, 32, 24)
    views = Views(policy, 2, 2**63 + 11, {})
    made = views.apply(images, views.words(torch.arange(16) * 2**31, torch.arange(16) % 2))
    assert hashlib.sha256(made.numpy().tobytes()).hexdigest()[:16] == GOLDEN[policy]


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_flip_mirrors_as_often_as_it_says(probability: float) -> None:
    images = torch.tensor([[[[1, 2, 3]]]], dtype=torch.uint8).expand(20_000, -1, 2, -1)
    made = flip(images, words_of(20_000), probability=probability)
    mirrored = (made == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(made[~mirrored], images[~mirrored])
    spread = (probability * (1 - probability) / 20_000) ** 0.5
    assert abs(float(mirrored.double().mean()) - probability) <= 4 * spread


def slow_crop_flip(image: NDArray[np.uint8], row: list[int], padding: int, fill: str) -> NDArray[np.uint8]:
    _, height, width = image.shape
    mode: Any = {"zero": "constant", "reflect": "reflect"}[fill]
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode=mode)
    top, left = (int(row[number] / 2**32 * (2 * padding + 1)) for number in (1, 2))
    cropped = padded[:, top : top + height, left : left + width]
    return cropped[:, :, ::-1] if row[0] < 2**31 else cropped


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("fill", ["zero", "reflect"])
@pytest.mark.parametrize("padding", [1, 4, 6, 20])
def test_crop_flip_follows_the_slow_reference(
    shape: tuple[int, int, int], fill: Literal["zero", "reflect"], padding: int
) -> None:
    images, random = images_of(200, *shape), words_of(200)
    if fill == "reflect" and padding >= min(shape[1:]):
        with pytest.raises(
            InputError, match=rf"padding: expected less than .* {shape[1]} x {shape[2]} .*found {padding};"
        ):
            crop_flip(images, random, padding=padding, fill=fill)
        return
    made = crop_flip(images, random, padding=padding, fill=fill)
    for image, row, found in zip(images.numpy(), random.tolist(), made.numpy(), strict=True):
        assert np.array_equal(found, slow_crop_flip(image, row, padding, fill))


def test_reflect_takes_a_padding_of_all_but_one_pixel() -> None:
    images, random = images_of(300, 1, 5, 9), words_of(300)
    made = crop_flip(images, random, padding=4, fill="reflect")
    for image, row, found in zip(images.numpy(), random.tolist(), made.numpy(), strict=True):
        assert np.array_equal(found, slow_crop_flip(image, row, 4, "reflect"))
    with pytest.raises(InputError, match="padding"):
        crop_flip(images, random, padding=5, fill="reflect")


def test_crop_flip_takes_every_offset_as_often() -> None:
    count, size = 40_000, 9
    images = torch.zeros(count, 1, size, size, dtype=torch.uint8)
    images[:, :, 4, 4] = 1  # never cropped away with a padding of 4
    place = crop_flip(images, words_of(count)).flatten(1).argmax(1)
    assert chi_square(torch.bincount(place, minlength=81)) < 130  # 80 degrees of freedom


def test_crop_flip_without_flip_only_crops() -> None:
    images = torch.arange(9, dtype=torch.uint8).expand(500, 1, 9, 9)
    steps = crop_flip(images, words_of(500), fill="zero", flip=False).long().diff(dim=-1)
    assert (steps.amax(dim=(1, 2, 3)) >= 1).all()
    both, plain = crop_flip(images, words_of(500)), crop_flip(images, words_of(500), flip=False)
    mirrored = (both == plain.flip(-1)).flatten(1).all(1)
    assert torch.equal(both[~mirrored], plain[~mirrored])
    assert 200 < int(mirrored.sum()) < 300


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 50), (50, 20), (1, 1), (224, 224)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.01, 0.02), (1.0, 1.0)])
@pytest.mark.parametrize("ratio", [(3 / 4, 4 / 3), (0.1, 10.0)])
def test_boxes_lie_inside_the_image(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    found = draw_boxes(words_of(5000), height, width, scale, ratio)
    assert (found.shape, found.dtype) == ((5000, 4), torch.int64)
    top, left, tall, wide = found.unbind(1)
    assert (torch.cat([top, left]) >= 0).all()
    assert (torch.cat([tall, wide]) >= 1).all()
    assert (top + tall <= height).all()
    assert (left + wide <= width).all()


def test_boxes_have_the_area_and_ratio_asked_for() -> None:
    size = 100_000  # so large that rounding a side to pixels hides nothing
    top, left, tall, wide = draw_boxes(words_of(20_000), size, size, (0.1, 0.4), (0.5, 2.0)).double().unbind(1)
    area, ratio = tall * wide / size**2, wide / tall
    assert 0.1 - 1e-4 < float(area.min()) < 0.101
    assert 0.399 < float(area.max()) < 0.4 + 1e-4
    assert 0.5 - 1e-4 < float(ratio.min()) < 0.501
    assert 1.99 < float(ratio.max()) < 2.0 + 1e-4
    for uniform in (
        (area - 0.1) / 0.3, (ratio.log2() + 1) / 2, top / (size - tall), left / (size - wide),
    ):  # fmt: skip
        assert chi_square(torch.bincount((uniform.clamp(0, 1 - 1e-9) * 20).long(), minlength=20)) < 50  # 19 degrees


def test_boxes_take_every_place_as_often() -> None:
    top, left, tall, wide = draw_boxes(words_of(40_000), 4, 5, (0.2, 0.2), (1.0, 1.0)).unbind(1)
    assert (torch.stack([tall, wide]) == 2).all()
    assert chi_square(torch.bincount(top * 4 + left, minlength=12)) < 35  # 11 degrees of freedom


def test_a_box_longer_than_the_image_is_cut() -> None:
    found = draw_boxes(words_of(100), 10, 40, (1.0, 1.0), (1.0, 1.0))
    assert (found[:, [0, 2]] == torch.tensor([0, 10])).all()
    assert (found[:, 3] == 20).all()
    assert len(set(found[:, 1].tolist())) > 10


@pytest.mark.parametrize("size", [1, 7, 32])
def test_the_whole_image_as_a_box_is_the_image(size: int) -> None:
    images = images_of(20, 3, size, size)
    assert torch.equal(random_resized_crop(images, words_of(20), scale=(1, 1), ratio=(1, 1), flip=False), images)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 1, 1), (2, 33, 31)])
def test_resizing_follows_interpolation_of_the_patch(shape: tuple[int, int, int]) -> None:
    images = images_of(100, *shape)
    places = draw_boxes(words_of(100), *shape[1:], (0.02, 1.0), (0.5, 2.0))
    for image, (top, left, tall, wide), found in zip(
        images, places.tolist(), resize_boxes(images, places), strict=True
    ):
        patch = image[None, :, top : top + tall, left : left + wide].double()
        expected = functional.interpolate(patch, size=shape[1:], mode="bilinear", align_corners=False)[0]
        assert (found.double() - expected).abs().max() < 0.8  # half a level of rounding, and the weights' own


def test_resizing_keeps_black_and_white() -> None:
    places = draw_boxes(words_of(50), 9, 14, (0.02, 1.0), (0.5, 2.0))
    for level in (0, 255):
        images = torch.full((50, 3, 9, 14), level, dtype=torch.uint8)
        assert torch.equal(resize_boxes(images, places), images)


def test_random_resized_crop_is_its_box_and_its_flip() -> None:
    images, random = images_of(100, 3, 9, 14), words_of(100)
    plain = resize_boxes(images, draw_boxes(random, 9, 14, (0.2, 0.6), (0.9, 1.1)))
    options: Any = {"scale": (0.2, 0.6), "ratio": (0.9, 1.1)}
    assert torch.equal(random_resized_crop(images, random, flip=False, **options), plain)
    mirrored = random[:, 0] < 2**31
    expected = torch.where(mirrored[:, None, None, None], plain.flip(-1), plain)
    assert torch.equal(random_resized_crop(images, random, **options), expected)
    assert not torch.equal(random_resized_crop(images, random), expected)


@pytest.mark.parametrize(
    ("scale", "ratio", "named"),
    [
        ((0.5, 0.1), (1.0, 1.0), "scale"),
        ((0.5, 1.1), (1.0, 1.0), "scale"),
        ((0.0, 1.0), (1.0, 1.0), "scale"),
        ((0.1, 1.0), (2.0, 1.0), "ratio"),
        ((0.1, 1.0), (-1.0, 1.0), "ratio"),
        ((0.1, float("nan")), (1.0, 1.0), "scale"),
    ],
)
def test_ranges_out_of_order_are_refused(scale: Any, ratio: Any, named: str) -> None:
    with pytest.raises(InputError, match=f"random_resized_crop: {named}: expected 0 < low <= high"):
        random_resized_crop(images_of(2), words_of(2), scale=scale, ratio=ratio)


def test_a_cycle_shows_all_samples_one_view_after_the_other() -> None:
    views, ids = Views("flip", 3, 0, {}), torch.tensor([4, 2**40, 0], dtype=torch.int64)
    assert [views.epoch_views(ids, epoch).tolist() for epoch in range(4)] == [[0] * 3, [1] * 3, [2] * 3, [0] * 3]
    assert views.epoch_views(ids.int(), 0).dtype == torch.int64


def test_a_draw_is_uniform_and_pure() -> None:
    views, ids = Views("flip", 5, 7, {}, "draw"), torch.arange(20_000) + 2**33
    drawn = [views.epoch_views(ids, epoch) for epoch in range(3)]
    for one in drawn:
        assert one.dtype == torch.int64
        assert chi_square(torch.bincount(one, minlength=5)) < 25  # 4 degrees of freedom
    for left, right in ((0, 1), (1, 2), (0, 2)):  # epochs are independent: all pairs of views are as frequent
        assert chi_square(torch.bincount(drawn[left] * 5 + drawn[right], minlength=25)) < 60
    rows = torch.tensor([9, 3, 19_999])
    assert torch.equal(views.epoch_views(ids[rows], 1), drawn[1][rows])
    assert not torch.equal(Views("flip", 5, 8, {}, "draw").epoch_views(ids, 0), drawn[0])


def test_a_draw_reads_words_that_no_policy_reads() -> None:
    ids = torch.arange(10)
    drawn = stream_words(0, torch.zeros_like(ids), ids, DRAW)
    assert not set(drawn.flatten().tolist()) & set(random_words(0, torch.zeros_like(ids), ids, 64).flatten().tolist())


def test_options_reach_the_policy() -> None:
    views, ids, images = Views("crop_flip", 2, 0, {"padding": 2, "flip": False}), torch.arange(30), images_of(30)
    random = views.words(ids, torch.ones_like(ids))
    assert torch.equal(random, random_words(0, torch.ones_like(ids), ids))
    assert torch.equal(views.apply(images, random), crop_flip(images, random, padding=2, flip=False))


def test_plain_changes_nothing() -> None:
    images = images_of(3)
    assert PLAIN.is_identity
    assert PLAIN.apply(images, words_of(3)) is images
    assert PLAIN.epoch_views(torch.arange(3), 5).tolist() == [0, 0, 0]
    assert not Views("flip", 1, 0, {"probability": 0.0}).is_identity


def test_parameters_are_what_decides_the_pixels() -> None:
    drawn = Views("crop_flip", 4, 11, {"padding": 2}, "draw")
    assert drawn.parameters == {"policy": "crop_flip", "count": 4, "seed": 11, "parameters": {"padding": 2}}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Views("flop", 1, 0, {}), "unknown policy 'flop': .*did you mean 'flip'"),
        (lambda: Views("flip", 0, 0, {}), "count: expected 1 or more, found 0"),
        (lambda: Views("none", 2, 0, {}), "count: expected 1, .*found 2"),
        (lambda: Views("flip", 1, -1, {}), "seed: .*found -1"),
        (lambda: Views("flip", 1, 2**64, {}), "seed"),
    ],
)
def test_views_that_cannot_be_are_refused(make: Callable[[], Views], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


class Policy(Section):
    policy: str


def parsed(**values: Any) -> BaseModel:
    return POLICIES.parse(values, tag="policy", base=Policy)


def test_options_are_validated_before_anything_runs() -> None:
    assert parsed(policy="crop_flip", padding=2).model_dump() == {
        "policy": "crop_flip", "padding": 2, "fill": "zero", "flip": True,
    }  # fmt: skip
    assert parsed(policy="random_resized_crop", scale=(0.5, 1)).model_dump()["scale"] == (0.5, 1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "none", "padding": 4},
        {"policy": "flip", "probability": 1.5},
        {"policy": "crop_flip", "padding": 0},
        {"policy": "crop_flip", "fill": "edge"},
        {"policy": "random_resized_crop", "scale": (0.5, 1.5)},
        {"policy": "random_resized_crop", "scale": (0.5, 0.1)},
        {"policy": "random_resized_crop", "ratio": (2.0, 1.0)},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(NestedError):
        parsed(**wrong)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compares the pixels of a GPU with a CPU's: needs CUDA")
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 60, 41)])
def test_a_gpu_makes_the_same_words_boxes_and_pixels(shape: tuple[int, int, int]) -> None:
    ids, images = torch.arange(2000) * 2**28, images_of(2000, *shape)
    views = Views("crop_flip", 7, 2**63 + 5, {}, "draw")
    numbers = views.epoch_views(ids, 3)
    assert torch.equal(views.epoch_views(ids.cuda(), 3).cpu(), numbers)
    random, on_gpu = views.words(ids, numbers), views.words(ids.cuda(), numbers.cuda())
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu(), random)
    for scale, ratio in (((0.08, 1.0), (3 / 4, 4 / 3)), ((0.01, 0.9), (0.1, 10.0))):
        found = draw_boxes(on_gpu, *shape[1:], scale, ratio)
        assert torch.equal(found.cpu(), draw_boxes(random, *shape[1:], scale, ratio))
    policies: list[tuple[str, dict[str, Any]]] = [
        ("flip", {}), ("crop_flip", {}), ("crop_flip", {"fill": "reflect"}), ("random_resized_crop", {}),
    ]  # fmt: skip
    for policy, options in policies:
        apply = Views(policy, 7, 0, options).apply
        assert torch.equal(apply(images.cuda(), on_gpu).cpu(), apply(images, random)), policy


def cache_of(views: Views | dict[str, Any]) -> Any:
    """As much of an opened cache as says which views it is of."""
    stated = views.parameters if isinstance(views, Views) else views
    info = ViewsInfo.model_validate_json(json.dumps(stated))
    return SimpleNamespace(manifest=SimpleNamespace(views=info), folder=SimpleNamespace(name="c"))


@pytest.mark.parametrize(
    "views",
    [
        PLAIN,
        Views("flip", 2, 2**63 + 1, {}),
        Views("flip", 2, 0, {"probability": 0.25}),
        Views("crop_flip", 16, 7, {"padding": 1, "fill": "reflect", "flip": False}),
        Views("random_resized_crop", 3, 5, {"scale": (0.5, 1.0), "ratio": (0.75, 1.5)}),
    ],
)
def test_the_views_of_a_cache_are_those_it_was_made_with(views: Views) -> None:
    assert Views.from_cache(cache_of(views)) == views
    assert Views.from_cache(cache_of(views)).parameters == views.parameters
    images, ids = images_of(6), torch.arange(6)
    random_words = views.words(ids, ids % views.count)
    assert torch.equal(Views.from_cache(cache_of(views)).apply(images, random_words), views.apply(images, random_words))
    if not views.is_identity:
        assert Views.from_cache(cache_of(views), "draw") == replace(views, order="draw")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "flop"}, "cache c: views.policy: unknown policy 'flop'.*did you mean 'flip'"),
        ({"parameters": {"probability": 2.0}}, "views.probability: expected less than or equal to 1, found 2.0"),
        ({"parameters": {"probability": [0.5]}}, "views.probability: expected a valid number"),
        ({"parameters": {"prob": 0.5}}, "views: unknown key 'prob': expected one of probability"),
        ({"seed": 2**64}, "views: seed: expected 0 <= seed"),
        ({"policy": "none", "count": 2}, "views: count: expected 1"),
    ],
)
def test_views_that_nobody_has_are_refused(change: dict[str, Any], message: str) -> None:
    stated = {"policy": "flip", "count": 1, "seed": 0, "parameters": {}, **change}
    with pytest.raises(InputError, match=message):
        Views.from_cache(cache_of(stated))
