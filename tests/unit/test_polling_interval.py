"""When an import is polled next."""

from __future__ import annotations

import random

import pytest

from image.waiting import polling_interval

HOUR = 3600
JITTERS = (0.0, 0.5, 1.0)


def polls(seconds: float, chance: random.Random) -> int:
    """How often an import is polled that takes so many seconds."""
    age, count = 0, 1
    while age < seconds:
        age += polling_interval(age, None, chance.random())
        count += 1
    return count


@pytest.mark.parametrize("jitter", JITTERS)
@pytest.mark.parametrize("age", [0, 60, 300, 1200, 3000, 11 * HOUR])
def test_the_response_is_late_by_a_twentieth_of_the_import_and_5_seconds(
    age: int, jitter: float
) -> None:
    interval = polling_interval(age, None, jitter)

    # The import ends right after the poll at this age.
    assert interval <= max(age / 20 + 5, 15)
    assert interval <= 90


@pytest.mark.parametrize("jitter", JITTERS)
def test_an_import_is_not_polled_more_often_than_every_12_seconds(jitter: float) -> None:
    assert all(polling_interval(age, None, jitter) >= 12 for age in range(0, 12 * HOUR, 60))


@pytest.mark.parametrize("jitter", JITTERS)
def test_a_completed_task_is_followed_by_short_intervals(jitter: float) -> None:
    assert 4 <= polling_interval(2 * HOUR, 0, jitter) <= 5
    assert polling_interval(2 * HOUR, 60, jitter) <= 25
    assert polling_interval(2 * HOUR, 4 * HOUR, jitter) <= 90


@pytest.mark.parametrize(("hours", "most"), [(1, 80), (12, 520)])
def test_the_number_of_polls_is_limited(hours: int, most: int) -> None:
    chance = random.Random(0)  # noqa: S311

    assert max(polls(hours * HOUR, chance) for _ in range(200)) <= most


def test_waits_that_begin_together_late_in_an_import_do_not_stay_together() -> None:
    chance = random.Random(0)  # noqa: S311
    first = [polling_interval(HOUR, None, chance.random(), is_first=True) for _ in range(400)]

    assert min(first) >= 60
    assert max(first) <= 90
    # At most a thirtieth of them, and some more by chance, poll in one second.
    assert max(first.count(second) for second in first) <= 30


def test_imports_that_start_together_do_not_stay_together() -> None:
    chance = random.Random(0)  # noqa: S311
    ages = [0] * 400
    for _ in range(20):
        ages = [age + polling_interval(age, None, chance.random()) for age in ages]

    assert max(ages.count(age) for age in ages) < 60
