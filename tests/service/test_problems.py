"""Errors as problem documents."""

import inspect
import json

import pytest

from handful_service import errors
from handful_service.engine.runtime import RuntimeUnfit
from handful_service.problems import PROBLEMS, TYPE_PREFIX, problem_body, problem_of, problem_response

FAMILIES = {errors.HandfulError, errors.RequestError, errors.CapacityError}
CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.HandfulError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_a_problem_of_its_family(kind: type[errors.HandfulError]) -> None:
    problem = problem_of(kind("x"))
    if kind in FAMILIES:
        assert kind not in PROBLEMS
    elif issubclass(kind, errors.RequestError):
        assert 400 <= problem.status < 500
    elif issubclass(kind, errors.CapacityError):
        assert problem.status in (429, 503, 504)
    else:
        assert problem.status == 500


@pytest.mark.parametrize("kind", sorted(set(CLASSES) - FAMILIES, key=str))
def test_every_error_is_in_the_table_or_a_kind_of_bundle_error(kind: type[errors.HandfulError]) -> None:
    assert kind in PROBLEMS or issubclass(kind, errors.BundleError)


def test_slugs_are_unique() -> None:
    slugs = [problem.slug for problem in PROBLEMS.values()]
    assert len(slugs) == len(set(slugs))


def test_a_subclass_is_told_as_its_own_or_its_nearest_ancestor() -> None:
    assert problem_of(errors.EventConflict("x")).slug == "event-conflict"
    assert problem_of(errors.GraphRefused("x")).slug == problem_of(RuntimeUnfit("x")).slug == "bundle-invalid"
    assert problem_of(errors.HandfulError("x")).status == 500


def test_a_problem_says_what_is_wrong_where_and_what_is_allowed() -> None:
    error = errors.SupportSetInvalid("there are 9 labels", field="support", allowed="at most 8 ways")
    assert problem_body(error) == {
        "type": TYPE_PREFIX + "support-set-invalid",
        "title": "The support set breaks a limit",
        "status": 422,
        "detail": "support: there are 9 labels (allowed: at most 8 ways)",
        "errors": [{"field": "support", "detail": "there are 9 labels", "allowed": "at most 8 ways"}],
    }
    assert problem_body(errors.NotReady("starting"))["errors"] == [{"detail": "starting"}]


@pytest.mark.parametrize(("kind", "retry"), [(errors.Overloaded, "1"), (errors.NotReady, "1"), (errors.TooLarge, None)])
def test_only_what_may_succeed_later_says_when_to_try_again(kind: type[errors.HandfulError], retry: str | None) -> None:
    response = problem_response(problem_body(kind("x")), "id-1")
    assert response.headers.get("retry-after") == retry
    assert response.media_type == "application/problem+json"
    assert json.loads(bytes(response.body))["request_id"] == "id-1"


def test_text_that_is_no_unicode_does_not_break_the_answer() -> None:
    response = problem_response(problem_body(errors.InputInvalid("\ud800 and ä")), "id-1")
    assert json.loads(bytes(response.body))["detail"] == "? and ä"
