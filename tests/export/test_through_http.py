"""A bundle measured as its users see it: PNG files, a server of its own, HTTP."""

from dataclasses import replace

import pytest
from tests.data import real_data
from tests.serving import BUNDLES

from handful_export.errors import ExportError
from handful_export.through_http import evaluate_bundle
from handful_models import omniglot
from handful_models.evaluation import Protocol

FEW = Protocol(5, 1, query=3, episodes=20)


def test_a_shipped_bundle_is_as_good_through_http() -> None:
    characters = omniglot.load(real_data(), "evaluation")
    found, error = evaluate_bundle(BUNDLES / "glyphs-prototypes" / "1", characters, FEW, seed=0)
    assert len(found.per_episode) == 20
    assert found.mean > 0.93
    assert 0 <= error < 0.1
    again, same = evaluate_bundle(BUNDLES / "glyphs-prototypes" / "1", characters, FEW, seed=0)
    assert (again.per_episode, same) == (found.per_episode, error)


def test_what_the_server_refuses_is_told() -> None:
    characters = omniglot.load(real_data(), "evaluation")
    with pytest.raises(ExportError, match=r"the server answered 422.*at most 5 ways"):
        evaluate_bundle(BUNDLES / "glyphs-lstm" / "1", characters, replace(FEW, way=6), seed=0)
