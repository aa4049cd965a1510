import pytest
import torch

from handful_models.errors import ConfigInvalid
from handful_models.record_encoder import RecordEncoder, RecordField, rows_of

FIELDS = (
    RecordField("age", "number"),
    RecordField("sector", "category", ("a", "b"), unseen="other"),
    RecordField("gain", "number"),
    RecordField("sex", "category", ("f", "m")),
)
COLUMNS = {
    "age": [20.0, 40.0, 60.0, 80.0],
    "sector": ["a", "b", "zzz", "a"],
    "gain": [0.0, 0, 0, 5],
    "sex": list("ffmm"),
}


def test_a_category_stands_as_its_place_and_an_unknown_one_behind_the_last() -> None:
    x = rows_of(FIELDS, COLUMNS)
    assert x.dtype == torch.float32
    assert x.tolist() == [[20, 0, 0, 0], [40, 1, 0, 0], [60, 2, 0, 1], [80, 0, 5, 1]]


def test_an_unknown_category_is_refused_where_it_is_not_folded() -> None:
    with pytest.raises(ConfigInvalid, match="sex: 'x' is none of f, m"):
        rows_of(FIELDS, {**COLUMNS, "sex": list("fxmm")})


def test_numbers_are_standard_and_categories_one_hot() -> None:
    encoder = RecordEncoder(FIELDS)
    x = rows_of(FIELDS, COLUMNS)
    encoder.fit(x)
    found = encoder(x)
    assert found.shape == (4, encoder.width) == (4, 2 + 3 + 3)
    torch.testing.assert_close(found[:, :2].mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(found[:, :2].std(0, correction=0), torch.ones(2))
    assert found[:, 2:5].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert found[:, 5:].tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]


def test_bins_fill_from_the_left_and_what_most_rows_have_takes_no_edges() -> None:
    encoder = RecordEncoder(FIELDS, bins=2)
    x = rows_of(FIELDS, COLUMNS)
    encoder.fit(x)
    assert encoder.edges.tolist() == [[20, 50, 80], [0, 5, 5]]
    placed = encoder(torch.tensor([[35.0, 0, 0, 0], [95, 0, 2.5, 0], [-5, 0, -1, 0], [20, 0, 9, 0]]))[:, 2:6]
    torch.testing.assert_close(placed, torch.tensor([[0.5, 0, 0, 0], [1, 1, 0.5, 0], [0, 0, 0, 0], [0, 0, 1, 1]]))


def test_categories_may_have_embeddings_and_what_is_out_of_the_list_has_one_too() -> None:
    encoder = RecordEncoder(FIELDS, embedding=4)
    found = encoder(torch.tensor([[1.0, 2, 0, 9], [1, 9, 0, 2]]))
    assert found.shape == (2, encoder.width) == (2, 2 + 4 + 4)
    assert torch.equal(found[0], found[1])
