"""Ends the resource tracker of `multiprocessing`, which some of CPython's tests start, after each of them."""

import sys

import pytest


@pytest.fixture(autouse=True)
def no_resource_tracker(nothing_left):
    yield
    if tracker := sys.modules.get("multiprocessing.resource_tracker"):
        tracker._resource_tracker._stop()
