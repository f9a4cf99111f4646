"""Which members of a tar form a sample: no picture hides another, and the size of a sample is bounded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator_image.reading.samples import Bad, Limits, Sample, group_members, names_picture
from curator_image.tar.read import Member


def members(names: Iterable[str], data: bytes = b"x") -> list[Member]:
    return [Member(name, data, 1024 * at, 1024 * at + 512) for at, name in enumerate(names)]


def grouped(*names: str, **options: Any) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    samples, bad = {}, []
    for item in group_members(members(names), **options):
        if isinstance(item, Sample):
            assert item.key not in samples
            samples[item.key] = list(item.members)
        else:
            bad.append((item.reason, item.position))
    return samples, bad


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.jpg", "a.txt"], {"a": ["jpg", "txt"]}),
        (["a.json", "a.jpg", "a.seg.npy"], {"a": ["json", "jpg", "seg.npy"]}),
        (["a.seg.npy", "a.jpg"], {"a": ["seg.npy", "jpg"]}),
        (["a.input.jpg", "a.txt"], {"a": ["input.jpg", "txt"]}),
        (["d.v1/a.jpg", "d.v1/a.txt"], {"d.v1/a": ["jpg", "txt"]}),
        (["I.1.jpg", "I.1.txt", "I.2.jpg", "I.2.txt"], {"I.1": ["jpg", "txt"], "I.2": ["jpg", "txt"]}),
        (["I.1.json", "I.1.jpg", "I.2.json", "I.2.jpg"], {"I.1": ["json", "jpg"], "I.2": ["json", "jpg"]}),
        (["I.1.jpg", "I.1.seg.npy", "I.2.jpg"], {"I.1": ["jpg", "seg.npy"], "I.2": ["jpg"]}),
        (["I.1.jpg", "other.jpg", "I.2.jpg"], {"I.1": ["jpg"], "other": ["jpg"], "I.2": ["jpg"]}),
        (["a.jpg", "a.mask.png", "a.txt"], {"a": ["jpg", "txt"], "a.mask": ["png"]}),
        (["a.jpg", "a.png"], {"a": ["jpg"], "a.png": ["png"]}),
        (["a.jpg", "a.svg"], {"a": ["jpg"], "a.svg": ["svg"]}),
    ],
)
def test_every_picture_is_a_sample_with_the_members_whose_names_begin_with_its_own(
    names: list[str], expected: dict[str, list[str]]
) -> None:
    assert grouped(*names) == (expected, [])


def test_the_rule_of_webdataset_applies_if_it_is_chosen() -> None:
    names = ("a.left.jpg", "a.right.jpg", "a.json", "b.left.jpg")
    assert grouped(*names, grouping="first_dot") == ({"a": ["left.jpg", "right.jpg", "json"], "b": ["left.jpg"]}, [])
    apart, _ = grouped(*names)
    assert apart == {"a.left": ["jpg"], "a.right": ["jpg"], "a": ["json"], "b.left": ["jpg"]}


def test_a_tar_of_ten_thousand_pictures_with_one_stem_is_read_in_little_memory() -> None:
    open_at_once = most = 0

    def counted() -> Iterable[Member]:
        nonlocal open_at_once, most
        for item in members(f"IMG.2024.{number:05d}.jpg" for number in range(10_000)):
            open_at_once += 1
            most = max(most, open_at_once)
            yield item

    found = 0
    for item in group_members(counted()):
        assert isinstance(item, Sample)
        assert list(item.members) == ["jpg"]
        found += 1
        open_at_once -= 1
    assert found == 10_000
    assert most < 20


@pytest.mark.parametrize("grouping", ["picture", "first_dot"])
def test_a_sample_of_too_many_members_or_bytes_is_one_reject(grouping: Any) -> None:
    names = [f"a.{number}.npy" for number in range(5000)]
    samples, bad = grouped(*names, "b.jpg", grouping=grouping, limits=Limits(members=10))
    assert samples == {"b": ["jpg"]}
    assert bad == [("sample too large", "a")]
    items = members(["a.jpg", "a.x", "a.y", "b.jpg"], bytes(600))
    found = list(group_members(items, grouping=grouping, limits=Limits(bytes=1500)))
    assert [item.reason if isinstance(item, Bad) else item.key for item in found] == ["sample too large", "b"]


def test_the_bytes_of_pictures_with_one_stem_are_also_bounded() -> None:
    items = members([f"a.{number}.jpg" for number in range(9)], bytes(1000))
    held = most = 0

    def counted() -> Iterable[Member]:
        nonlocal held, most
        for item in items:
            held += len(item.data)
            most = max(most, held)
            yield item

    for item in group_members(counted(), limits=Limits(bytes=2500)):
        assert isinstance(item, Sample)
        held -= item.size()
    assert most <= 4000


words = st.text("aIx1", min_size=1, max_size=2)
endings = st.sampled_from(["jpg", "png", "JPG", "txt", "json", "npy", "svg", "bin", ""])
names = st.builds(lambda parts, end: ".".join([*parts, end]), st.lists(words, min_size=1, max_size=3), endings)


@pytest.mark.slow
@pytest.mark.parametrize("examples", [150, pytest.param(500, marks=pytest.mark.thorough)])
def test_every_member_is_in_one_sample_or_one_record_and_no_picture_is_a_sidecar(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(st.lists(names, max_size=12), st.integers(1, 4))
    def holds(given: list[str], most: int) -> None:
        items = [Member(name, str(at).encode(), 1024 * at, 1024 * at + 512) for at, name in enumerate(given)]
        samples: list[Sample] = []
        left: list[bytes] = []
        beyond = 0
        for item in group_members(iter(items), limits=Limits(members=most)):
            if isinstance(item, Sample):
                samples.append(item)
                left += item.members.values()
                assert len(item.members) <= most
            elif item.reason == "sample too large" and not item.raw:
                beyond += int(item.message.split(": ")[1].split()[0].replace(",", ""))
            elif item.reason == "duplicate key":
                beyond += item.message.split("members here are ")[1].count(",") + 1
            else:
                left.append(item.raw)
        assert len(left) == len(set(left))
        assert len(left) + beyond == len(items)
        assert len({sample.key for sample in samples}) == len(samples)
        for sample in samples:
            assert sum(map(names_picture, sample.members)) <= 1

    holds()
