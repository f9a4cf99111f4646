"""Measures: the meaning of each number, shown on pictures made for it; filters keep and drop accordingly."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from curator_core.errors import UsageError
from curator_core.registry import STAGES, entries, load
from curator_core.stages.column_filter import ColumnFilter
from curator_image import (
    AspectRatioFilter,
    BlurFilter,
    BorderFilter,
    BrightnessFilter,
    BytesPerPixelFilter,
    CaptionDuplicateFilter,
    CaptionLengthFilter,
    CaptionToText,
    ColorfulnessFilter,
    ContrastFilter,
    EntropyFilter,
    FormatFilter,
    ImageBatch,
    ResolutionFilter,
    UniformFilter,
)
from curator_image.batch import tensor_column
from curator_image.decode import Picture, decode_batch
from curator_image.measures import PictureStats
from curator_image.measures.stats import luma


def noise(seed: int = 0, side: int = 64, low: int = 0, high: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (side, side, 3), dtype=np.uint8)


def plain(level: int, side: int = 64) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def thumbs(*pictures: np.ndarray) -> ImageBatch:
    keys = [str(row) for row in range(len(pictures))]
    return ImageBatch(data=pa.table({"key": keys, "thumb": tensor_column(np.stack(pictures))}))


def scores(stage: Any, batch: ImageBatch) -> list[Any]:
    return list(stage.score_batch(batch).to_pylist())


def kept(stage: Any, batch: ImageBatch) -> list[str]:
    return list(stage.process(batch).to_pyarrow().column("key").to_pylist())


def test_brightness_and_contrast_are_shares_of_the_full_range() -> None:
    half = plain(0)
    half[:32] = 255
    batch = thumbs(plain(0), plain(255), plain(51), half)
    assert scores(BrightnessFilter(), batch) == [0.0, 1.0, 0.2, 0.5]
    assert scores(ContrastFilter(), batch) == [0.0, 0.0, 0.0, 0.5]
    assert kept(BrightnessFilter(), batch) == ["2", "3"]
    assert kept(ContrastFilter(), batch) == ["3"]


def test_entropy_counts_the_bits_of_grey_levels() -> None:
    two = plain(0)
    two[:32] = 200
    levels = np.arange(64 * 64).reshape(64, 64) % 256
    every = np.repeat(levels[:, :, None], 3, axis=2).astype(np.uint8)
    assert scores(EntropyFilter(), thumbs(plain(7), two, every)) == [0.0, 1.0, 8.0]


def test_a_blurred_picture_has_a_lower_variance_than_a_sharp_one() -> None:
    sharp = noise()
    soft = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(3)))
    found = scores(BlurFilter(), thumbs(sharp, soft, plain(9)))
    assert found[0] > 1000
    assert 50 > found[1] > found[2] == 0
    assert kept(BlurFilter(), thumbs(sharp, soft)) == ["0"]


def test_blur_is_the_variance_of_the_laplacian_in_the_second_sharpest_tile() -> None:
    grey = luma(noise(3)).astype(np.int64)
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    tiles = [laplacian[15 * row : 15 * row + 15, 15 * at : 15 * at + 15].var() for row in range(4) for at in range(4)]
    assert scores(BlurFilter(), thumbs(noise(3))) == [pytest.approx(sorted(tiles)[-2], abs=1e-5)]
    tiny = luma(noise(3, side=6)).astype(np.int64)
    whole = 4 * tiny[1:-1, 1:-1] - tiny[:-2, 1:-1] - tiny[2:, 1:-1] - tiny[1:-1, :-2] - tiny[1:-1, 2:]
    assert scores(BlurFilter(), thumbs(noise(3, side=6))) == [pytest.approx(whole.var(), abs=1e-5)]


def test_colourfulness_is_zero_for_grey_and_as_published_for_colour() -> None:
    grey = np.repeat(noise(1)[:, :, :1], 3, axis=2)
    color = noise(2)
    red, green, blue = (color[:, :, channel].astype(float) for channel in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    expected = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert scores(ColorfulnessFilter(), thumbs(grey, color)) == [0.0, pytest.approx(expected, abs=1e-5)]


def test_a_nearly_uniform_picture_is_detected_by_its_most_common_tone() -> None:
    mostly = plain(100)
    mostly[:4] = noise()[:4]
    batch = thumbs(plain(3), noise(0, low=120, high=128), mostly, noise())
    found = scores(UniformFilter(), batch)
    assert found[:2] == [1.0, 1.0]
    assert 0.93 < found[2] < 0.97
    assert found[3] < 0.3
    assert kept(UniformFilter(), batch) == ["3"]


def test_borders_are_bands_along_the_edges() -> None:
    letterbox = noise()
    letterbox[:16] = letterbox[48:] = 0
    frame = plain(255)
    frame[8:56, 8:56] = noise()[8:56, 8:56]
    one_side = noise()
    one_side[:, :16] = 128
    batch = thumbs(letterbox, frame, one_side, noise(), plain(5))
    assert scores(BorderFilter(), batch) == [0.5, 1 - 0.75**2, 0.25, 0.0, 1.0]
    assert kept(BorderFilter(), batch) == ["3"]


def test_numbers_are_computed_once_and_kept_through_a_filter() -> None:
    batch = thumbs(*(noise(seed, low=0, high=20 + 50 * seed) for seed in range(4)))
    before = scores(BrightnessFilter(), batch)
    stats = PictureStats.of(batch, "thumb")
    some = batch.filter(pa.array([True, False, True, True])).filter(pa.array([False, True, True]))
    follower = PictureStats.of(some, "thumb")
    assert follower is not stats
    assert follower._shared is stats._shared
    assert list(follower.get("brightness")) == [before[2], before[3]]
    assert list(follower.get("blur")) == scores(BlurFilter(), thumbs(noise(2, high=120), noise(3, high=170)))


def test_replacing_the_pictures_discards_their_numbers() -> None:
    batch = thumbs(plain(0), plain(0))
    assert scores(BrightnessFilter(), batch) == [0.0, 0.0]
    brighter = batch.append_column("thumb", tensor_column(np.stack([plain(255), plain(51)])))
    assert scores(BrightnessFilter(), brighter) == [1.0, 0.2]


def test_only_the_last_measure_drops_the_picture() -> None:
    first, last = BlurFilter(mode="annotate").needed_by(frozenset({"thumb"})), EntropyFilter().needed_by(frozenset())
    assert (list(first.removes()), list(last.removes())) == ([], ["thumb"])
    batch = thumbs(noise(), plain(0))
    assert "thumb" in first.process(batch).column_names
    after = last.process(batch)
    assert after.column_names == ["key"]
    assert after.to_pyarrow().column("key").to_pylist() == ["0"]
    assert "thumb" in EntropyFilter().process(batch).column_names  # outside of a pipeline nothing is removed


@pytest.mark.parametrize(
    "stage",
    [BlurFilter, BorderFilter, BrightnessFilter, ColorfulnessFilter, ContrastFilter, EntropyFilter, UniformFilter],
)
def test_every_measure_annotates_filters_and_inverts(stage: Any) -> None:
    batch = thumbs(noise(), plain(0), noise(1), plain(255))
    annotated = stage(mode="annotate").process(batch)
    name = stage().short_name()
    verdicts = annotated.to_pyarrow().column(f"{name}_keep").to_pylist()
    assert annotated.num_rows == 4
    assert annotated.to_pyarrow().column(name).null_count == 0
    chosen, others = stage(), stage(mode="invert")
    assert kept(chosen, batch) == [key for key, verdict in zip("0123", verdicts, strict=True) if verdict]
    assert kept(others, batch) == [key for key, verdict in zip("0123", verdicts, strict=True) if not verdict]
    assert sum(chosen.recorder.dropped.values()) == 4 - sum(verdicts)
    assert sum(others.recorder.dropped.values()) == sum(verdicts)
    assert stage().inputs() == ["thumb"]


@given(st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 250)), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_scores_do_not_depend_on_the_rest_of_the_batch(seeds: list[tuple[int, int]]) -> None:
    pictures = [noise(seed, 24, low=low) for seed, low in seeds]
    together = PictureStats.of(thumbs(*pictures), "thumb")
    for name in ("brightness", "contrast", "entropy", "uniform", "blur", "border", "color"):
        alone = [float(PictureStats.of(thumbs(picture), "thumb").get(name)[0]) for picture in pictures]
        assert list(together.get(name)) == alone
        assert np.isfinite(alone).all()


# Headers and captions ------------------------------------------------------------------------------------------------


def rows(**columns: list[Any]) -> ImageBatch:
    count = len(next(iter(columns.values())))
    return ImageBatch(data=pa.table({"key": [str(row) for row in range(count)], **columns}))


def test_resolution_has_four_limits_and_says_which_one_was_exceeded() -> None:
    batch = rows(width=[100, 50, 500, 100, None], height=[100, 100, 100, 20, 10])
    stage = ResolutionFilter(min_width=64, min_height=64, max_width=400)
    assert kept(stage, batch) == ["0"]
    assert stage.recorder.dropped == {"width too low": 2, "width too high": 1, "height too low": 1}
    annotated = ResolutionFilter(min_width=64, mode="annotate").process(batch).to_pyarrow()
    assert annotated.column("resolution").to_pylist()[1] == {"width": 50, "height": 100}
    assert annotated.column("resolution_keep").to_pylist() == [True, False, True, True, False]


def test_aspect_ratio_is_width_by_height() -> None:
    stage = AspectRatioFilter(min_ratio=0.5, max_ratio=2)
    batch = rows(width=[100, 300, 10, 200], height=[100, 100, 100, 100])
    assert scores(stage, batch) == [1.0, 3.0, 0.1, 2.0]
    assert kept(stage, batch) == ["0", "3"]
    assert stage.recorder.dropped == {"image too wide": 1, "image too tall": 1}


def test_bytes_per_pixel_compares_file_and_picture() -> None:
    batch = rows(bytes=[b"x" * 50, b"x"], width=[10, 10], height=[10, 10])
    stage = BytesPerPixelFilter(min_bytes=0.1)
    assert scores(stage, batch) == [0.5, 0.01]
    assert kept(stage, batch) == ["0"]


def test_formats_are_kept_by_name_and_other_formats_are_named() -> None:
    stage = FormatFilter(allowed=["jpeg"])
    assert kept(stage, rows(format=["jpeg", "gif", "gif", "png"])) == ["0"]
    assert stage.recorder.dropped == {"format gif": 2, "format png": 1}


def test_caption_length_counts_characters_without_the_spaces_around() -> None:
    stage = CaptionLengthFilter(min_chars=3, max_chars=5)
    batch = rows(caption=["  ab ", "abc", "äöüß", None, "abcdef"])
    assert scores(stage, batch) == [2, 3, 4, 0, 6]
    assert kept(stage, batch) == ["1", "2"]
    assert stage.recorder.dropped == {"caption too short": 2, "caption too long": 1}


def test_captions_that_repeat_within_the_batch_are_dropped_all() -> None:
    stage = CaptionDuplicateFilter(max_count=1)
    batch = rows(caption=["Image", "a dog", " image", None, None, "", "A DOG!"])
    assert scores(stage, batch) == [2, 1, 2, 0, 0, 0, 1]
    assert kept(stage, batch) == ["1", "3", "4", "5", "6"]
    assert scores(stage, rows(caption=pa.array([None, None], pa.string()))) == [0, 0]


def test_ranges_that_no_value_is_in_are_refused() -> None:
    for wrong in (
        lambda: ResolutionFilter(min_width=10, max_width=5),
        lambda: AspectRatioFilter(min_ratio=float("nan")),
        lambda: EntropyFilter(min_bits=5, max_bits=3),
        lambda: FormatFilter(allowed=["jpg"]),
        lambda: CaptionDuplicateFilter(max_count=0),
        lambda: BlurFilter(min_variance="high"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UsageError):
            wrong()


# Real photographs -----------------------------------------------------------------------------------------------------


def photographs() -> list[Image.Image]:
    folder = Path(pytest.importorskip("sklearn.datasets").__file__).parent / "images"
    return [Image.open(folder / name).convert("RGB") for name in ("china.jpg", "flower.jpg")]


def thumb(image: Image.Image) -> np.ndarray:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    made, errors = decode_batch([out.getvalue()], Picture(128, 128, "squash", "bilinear"))
    assert not errors
    return made[0]


def cut_out(image: Image.Image, share: float, tone: int) -> Image.Image:
    """An oval cut out of the picture, on a plain background."""
    small = image.resize((int(image.width * share**0.5), int(image.height * share**0.5)))
    mask = Image.new("L", small.size)
    ImageDraw.Draw(mask).ellipse((0, 0, small.width - 1, small.height - 1), fill=255)
    ground = Image.new("RGB", image.size, (tone, tone, tone))
    ground.paste(small, ((image.width - small.width) // 2, (image.height - small.height) // 2), mask)
    return ground


@pytest.mark.slow
def test_photographs_pass_whole_or_cut_out_and_blurred_photographs_do_not() -> None:
    images = photographs()
    good = [*images, *(cut_out(image, share, tone) for image in images for share in (0.5, 0.1) for tone in (255, 20))]
    assert len(kept(BlurFilter(), thumbs(*map(thumb, good)))) == len(good)
    blurred = [image.filter(ImageFilter.GaussianBlur(image.width / 100)) for image in images]
    assert kept(BlurFilter(), thumbs(*map(thumb, blurred))) == []


@pytest.mark.slow
def test_a_plain_background_is_no_border_but_a_bar_or_a_frame_is() -> None:
    images = photographs()
    grounds = [cut_out(image, share, tone) for image in images for share in (0.7, 0.25) for tone in (255, 128, 20)]
    assert len(kept(BorderFilter(), thumbs(*map(thumb, [*images, *grounds])))) == len(images) + len(grounds)
    barred = []
    for image in images:
        for tone in (0, 255):
            bars = Image.new("RGB", (image.width, image.height * 5 // 4), (tone, tone, tone))
            bars.paste(image, (0, image.height // 8))
            frame = Image.new("RGB", (image.width * 6 // 5, image.height * 6 // 5), (tone, tone, tone))
            frame.paste(image, (image.width // 10, image.height // 10))
            barred += [bars, frame]
    assert kept(BorderFilter(), thumbs(*map(thumb, barred))) == []


# All filters ------------------------------------------------------------------------------------------------------------


def facts(rows: int = 2) -> ImageBatch:
    table = thumbs(*(noise(seed) for seed in range(rows))).to_pyarrow()
    for name, value in {
        "caption": "some words",
        "format": "jpeg",
        "width": 64,
        "height": 64,
        "bytes": b"x" * 99,
    }.items():
        table = table.append_column(name, pa.array([value] * rows))
    return ImageBatch(data=table.append_column("url", pa.array(["http://x"] * rows)))


def filters() -> list[type[ColumnFilter]]:
    named = [name for name, owners in entries(STAGES).items() if owners[0].owner == "curator-image"]
    found = [load(STAGES, name) for name in named]
    return [stage for stage in found if issubclass(stage, ColumnFilter)]


def test_no_filter_replaces_a_column() -> None:
    needs_models = {"AestheticFilter", "CaptionScoreFilter", "NSFWFilter"}
    tried = 0
    for kind in filters():
        if kind.__name__ in needs_models:
            assert kind.process is ColumnFilter.process  # the base class checks it for all of them
            continue
        for options in ({"score_column": "url"}, {"score_column": "url", "mode": "annotate"}):
            with pytest.raises(UsageError, match=f"{kind.__name__} adds a column 'url', and there is one already"):
                kind(**options).process(facts())
        batch = facts().append_column("verdict_keep", pa.array([1, 2]))
        with pytest.raises(UsageError, match="verdict_keep"):
            kind(score_column="verdict", mode="annotate").process(batch)
        tried += 1
    assert tried >= 12


def test_a_caption_called_text_replaces_no_other_text() -> None:
    with pytest.raises(UsageError, match="CaptionToText adds a column 'url'"):
        CaptionToText(text_column="url").process(facts())
