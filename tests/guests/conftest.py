"""The models that are watched and sped up, each made once."""

import functools

import pytest

from tests.guests import published, zoo

EVERY = (*zoo.KINDS, *published.KINDS)


@functools.cache
def guest(kind: str) -> zoo.Guest:
    """A model of a kind; what a test does to it, it undoes."""
    return (published if kind in published.KINDS else zoo).make(kind)


@pytest.fixture(params=EVERY)
def every(request) -> zoo.Guest:
    """A model of each kind that is known."""
    return guest(request.param)
