"""Paths, queries, changes and headers that must be refused."""

from .bad_requests import ADAPTATIONS, ALICE, GOOD, PREDICT, SUPPORT, Bad

PATHS = [
    Bad("an unknown path", 404, "not-found", None, method="GET", path="/v1/nothing"),
    Bad("a slash too many", 404, "not-found", None, method="GET", path="/v1/models/"),
    Bad("an empty id", 404, "not-found", None, {"support": SUPPORT}, "PUT", f"{ADAPTATIONS}/"),
    Bad("a wrong method", 405, "method-not-allowed", None, method="GET", path=PREDICT),
    Bad("a method of another protocol", 405, "method-not-allowed", None, method="LOCK", path=ALICE),
    Bad("an unknown model", 404, "model-not-found", "model", GOOD, path="/v1/models/letters/predict"),
    Bad("NUL in a model", 404, "model-not-found", "model", GOOD, path="/v1/models/%00/predict"),
    *(
        Bad(what, 422, "request-invalid", "path.id", {"support": SUPPORT}, "PUT", f"{ADAPTATIONS}/{name}")
        for what, name in [
            ("two dots", "%2E%2E"),
            ("a space", "a%20b"),
            ("129 characters", "a" * 129),
            ("another alphabet", "%C3%A9"),
            ("invalid UTF-8 in the path", "%FF"),
            ("a line break", "a%0A"),
            ("a dash in front", "-a"),
        ]
    ),
    Bad("an encoded slash", 404, "not-found", None, {"support": SUPPORT}, "PUT", f"{ADAPTATIONS}/a%2Fb"),
    Bad(
        "an id of an example", 422, "request-invalid", "path.example_id", method="DELETE", path=f"{ALICE}/examples/%2E"
    ),
    Bad("limit 0", 422, "request-invalid", "query.limit", method="GET", path=f"{ADAPTATIONS}?limit=0"),
    Bad("limit 1001", 422, "request-invalid", "query.limit", method="GET", path=f"{ADAPTATIONS}?limit=1001"),
    Bad("limit as a word", 422, "request-invalid", "query.limit", method="GET", path=f"{ADAPTATIONS}?limit=all"),
    Bad("after no id", 422, "request-invalid", "query.after", method="GET", path=f"{ADAPTATIONS}?after=-"),
    Bad(
        "an event id",
        422,
        "request-invalid",
        "query.event_id",
        method="DELETE",
        path=f"{ALICE}/examples/e0?event_id=%20",
    ),
    Bad(
        "a version in the query",
        404,
        "model-not-found",
        "version",
        method="DELETE",
        path=f"{ALICE}/examples/e0?version=99",
    ),
]

CHANGES = [
    Bad("PUT without a support set", 422, "request-invalid", "support", {}, "PUT", ALICE),
    Bad("PUT of an empty one", 422, "support-set-invalid", "support", {"support": []}, "PUT", ALICE),
    Bad(
        "PUT of null",
        422,
        "request-invalid",
        "support[0].input",
        {"support": [{"input": None, "label": "a"}]},
        "PUT",
        ALICE,
    ),
    Bad(
        "PUT of no picture",
        422,
        "input-invalid",
        "support[1].input",
        {"support": [SUPPORT[0], {"input": "?", "label": "a"}]},
        "PUT",
        ALICE,
    ),
    Bad(
        "PUT of one id twice",
        422,
        "request-invalid",
        "support[1].example_id",
        {"support": [{**example, "example_id": "e"} for example in SUPPORT]},
        "PUT",
        ALICE,
    ),
    Bad(
        "PUT of an example id",
        422,
        "request-invalid",
        "support[0].example_id",
        {"support": [{**SUPPORT[0], "example_id": ""}]},
        "PUT",
        ALICE,
    ),
    Bad(
        "PUT of a source with NUL",
        422,
        "request-invalid",
        "support[0].source",
        {"support": [{**SUPPORT[0], "source": "\0"}]},
        "PUT",
        ALICE,
    ),
    Bad(
        "PUT of an event",
        422,
        "request-invalid",
        "support[0]",
        {"support": [{**SUPPORT[0], "event_id": "e"}]},
        "PUT",
        ALICE,
    ),
    Bad("POST of no examples", 422, "request-invalid", "examples", {"examples": []}, path=f"{ALICE}/examples"),
    Bad(
        "POST of half good examples",
        422,
        "input-invalid",
        "examples[1].input",
        {"examples": [SUPPORT[0], {"input": "?", "label": "a"}]},
        path=f"{ALICE}/examples",
    ),
    Bad(
        "POST to nobody",
        404,
        "adaptation-not-found",
        "id",
        {"examples": SUPPORT},
        path=f"{ADAPTATIONS}/nobody/examples",
    ),
]

HEADERS = [
    *(
        Bad(f"content type {kind!r}", 415, "unsupported-media", "Content-Type", GOOD, headers={"Content-Type": kind})
        for kind in ("text/plain", "application/x-www-form-urlencoded", "")
    ),
    *(
        Bad(
            f"If-Match {value}",
            422,
            "request-invalid",
            "If-Match",
            {"support": SUPPORT},
            "PUT",
            ALICE,
            {"If-Match": value},
        )
        for value in ("7", 'W/"7"', '"0"', '"seven"', '"1", "2"', "")
    ),
    Bad(
        "If-None-Match of a revision",
        422,
        "request-invalid",
        "If-None-Match",
        {"support": SUPPORT},
        "PUT",
        ALICE,
        {"If-None-Match": '"1"'},
    ),
    Bad(
        "both conditions",
        422,
        "request-invalid",
        "If-Match",
        {"support": SUPPORT},
        "PUT",
        ALICE,
        {"If-Match": "*", "If-None-Match": "*"},
    ),
    *(
        Bad(f"X-Deadline-Ms {value!r}", 422, "request-invalid", "X-Deadline-Ms", GOOD, headers={"X-Deadline-Ms": value})
        for value in ("0", "-1", "soon", "", "30001", "1" * 30, "1.5")
    ),
]
