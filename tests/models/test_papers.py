from pathlib import Path

import numpy as np
import pytest
import torch
from tests.data import real_data

from handful_models import paper_tasks, papers
from handful_models.errors import ConfigInvalid, DataMissing
from handful_models.mixed_readers import FIRST_KEYWORD, MixedReaders, MixedReadersOptions
from handful_models.paper_report import resampled
from handful_models.paper_tasks import TokenizedPapers, best_threshold, logistic, micro_f1, weighted_counts
from handful_models.tasks import EpisodeShape
from handful_models.text import PAIRS, TextEncoder
from handful_models.tokens import read_tokenizer, token_ids, train_tokenizer
from handful_models.venue_years import VenueYears

ACL, UAI = (float(papers.VENUES.index(name)) for name in ("acl", "uai"))


@pytest.fixture(scope="module")
def some() -> papers.Papers:
    """Every eighth paper of the real ones."""
    from pyarrow import parquet

    from handful_models import digests

    table = parquet.read_table(digests.check(real_data() / "papers" / papers.FILE, papers.DIGESTS))
    return papers.of_rows(table.take(list(range(0, table.num_rows, 8))).to_pylist())


@pytest.fixture(scope="module")
def material(some: papers.Papers, tmp_path_factory: pytest.TempPathFactory) -> TokenizedPapers:
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    train_tokenizer(some.text[:600], 600).save(str(path))
    return TokenizedPapers.of(some, path, 64)


def fresh(labels: int) -> MixedReaders:
    torch.manual_seed(0)
    encoder = TextEncoder(600, 64, size=8, pools=2, guesses=3)
    return MixedReaders(encoder, MixedReadersOptions(keywords=labels, hidden=16)).eval()


@pytest.fixture(scope="module")
def learner(material: TokenizedPapers) -> MixedReaders:
    made = fresh(len(material.papers.labels))
    made.name_keywords(material.papers.labels)
    paper_tasks.prepare(made, material)
    return made


def test_the_list_of_held_out_venue_years_follows_its_rule(some: papers.Papers) -> None:
    years = [(papers.VENUES[int(venue)], int(year)) for venue, year in some.metadata]
    assert papers.held_out_by_rule(years) == tuple(sorted(papers.HELD_OUT))
    held = {years[row] for row in some.rows("held-out")}
    assert held == set(papers.HELD_OUT)
    assert not held & {years[row] for part in papers.PARTS[:3] for row in some.rows(part)}


def test_what_is_missing_is_missing(some: papers.Papers) -> None:
    pages, ratings = ~np.isnan(some.pages), ~np.isnan(some.rating)
    assert not (pages & ratings).any(), "no paper of the set has both"
    assert set(some.metadata[~np.isnan(some.accept), 0]) == {float(papers.VENUES.index("iclr"))}
    blank = np.isnan(some.keywords)
    assert (blank.all(1) == blank.any(1)).all()
    assert (some.keywords[some.rows("train", "keywords")].sum(0) >= papers.LEAST_PAPERS).all()
    for one in np.unique(some.metadata[ratings], axis=0):
        here = (some.metadata == one).all(1) & ratings & (some.part == "train")
        if here.sum() > 1:
            assert some.rating[here].mean() == pytest.approx(0, abs=1e-4)
            assert some.rating[here].std() == pytest.approx(1, abs=1e-3)


def test_a_tokenizer_keeps_to_its_pieces_and_comes_back_from_its_file(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["Deep learning of deep things", "Learning to learn"] * 3, 60)
    assert tokenizer.get_vocab_size() <= 60
    assert (tokenizer.token_to_id("[PAD]"), tokenizer.token_to_id("[UNK]")) == (0, 1)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ids = token_ids(read_tokenizer(tmp_path / "tokenizer.json"), ["deep LEARNING", "", "things " * 50], 7)
    assert ids.shape == (3, 7)
    assert (ids[1] == 0).all()
    assert (ids[2] > 0).all()
    assert ids[0].tolist() == token_ids(tokenizer, ["Deep learning"], 7)[0].tolist()
    with pytest.raises(DataMissing, match="handful train"):
        read_tokenizer(tmp_path / "none.json")


def test_padding_and_neighbours_do_not_touch_a_text() -> None:
    encoder = fresh(4).encoder
    torch.nn.init.normal_(encoder.guess.weight)
    x = torch.randint(2, 600, (3, 12))
    x[1, 5:] = 0
    x[2] = 0
    found = encoder(x)
    torch.testing.assert_close(encoder(torch.cat([x, torch.zeros(3, 9, dtype=torch.int64)], 1)), found)
    torch.testing.assert_close(encoder(x[1:2, :5]), found[1:2])
    assert torch.equal(found[2], torch.zeros(encoder.width)), "an empty text has features 0"


def test_guesses_are_the_regression_on_weighted_counts() -> None:
    encoder = fresh(4).encoder
    x = torch.randint(0, 600, (40, 12)).sort(1, descending=True).values
    terms, there = (part.numpy() for part in encoder.terms(x))
    counts, rarity = weighted_counts(terms, there, np.arange(40), 600 + PAIRS)
    encoder.rarity.weight.copy_(torch.from_numpy(rarity).unsqueeze(1))
    torch.nn.init.normal_(encoder.guess.weight)
    expected = counts @ encoder.guess.weight.numpy()
    np.testing.assert_allclose(encoder(x)[:, -3:].detach().numpy(), expected, atol=1e-4)


def test_a_venue_and_year_speak_for_the_nearest_known_year() -> None:
    years = VenueYears(5)
    metadata = torch.tensor([[ACL, 2020.0]] * 3 + [[ACL, 2022.0]] * 2 + [[UAI, 2021.0]] * 2)
    years.fit(metadata, torch.tensor([8.0, 9, 10, 11, 13, 20, 22]))
    level, unit, open_level = years(torch.tensor([[ACL, 2020.0], [ACL, 2021], [ACL, 2030], [UAI, 2000], [99, 2020]]))
    assert level.tolist() == pytest.approx([9, 9, 12, 21, 14])
    assert unit[:4].tolist() == pytest.approx([0.8165, 0.8165, 1, 1], abs=1e-4)
    assert open_level[0] == pytest.approx(1 / 3)
    assert open_level[2] > open_level[1] > open_level[0]
    with pytest.raises(ConfigInvalid, match="venue_years: 3 in the data, got 1"):
        VenueYears(1).fit(metadata, torch.ones(7))


def described(learner: MixedReaders, index: int = 0) -> dict[str, torch.Tensor]:
    metadata = torch.tensor([[UAI, 2024.0], [ACL, 2021.0]])
    return dict(learner.describe("metadata", {"index": torch.full((2,), index), "metadata": metadata}))


def test_page_counts_move_the_level_as_the_normal_equations_say(
    learner: MixedReaders, material: TokenizedPapers
) -> None:
    prior = described(learner)
    features = {"features": learner.encode({"x": material.x[:20]})["features"].reshape(2, 10, -1).detach()}
    level, unit = prior["units"].unbind(1)
    # No more surprise than the prior expects: the covariance is not widened.
    standard = 0.2 * torch.randn(2, 10, generator=torch.Generator().manual_seed(1))
    y = (level[:, None] + unit[:, None] * standard).unsqueeze(-1)
    found = learner.adapted(prior, features, y, torch.ones(2, 10))
    x = learner.regressors(features).double().numpy()
    noise = float(learner.noise[0]) + 1e-4
    for task in range(2):
        before = np.linalg.inv(prior["covariance"][task].double().numpy())
        after = np.linalg.inv(before + x[task].T @ x[task] / noise)
        moment = before @ prior["mean"][task].double().numpy() + x[task].T @ standard[task].double().numpy() / noise
        np.testing.assert_allclose(found["covariance"][task], after, atol=1e-4)
        np.testing.assert_allclose(found["mean"][task], after @ moment, atol=1e-3)


def test_a_jump_frees_the_level_and_no_papers_leave_it(learner: MixedReaders, material: TokenizedPapers) -> None:
    prior = described(learner)
    features = {"features": learner.encode({"x": material.x[:20]})["features"].reshape(2, 10, -1).detach()}
    y = torch.full((2, 10, 1), 300.0)
    jumped = learner.adapted(prior, features, y, torch.ones(2, 10))
    answer = learner.predict({"features": features["features"][:, 0]}, jumped)[:, 0, 0]
    assert torch.allclose(answer, torch.full((2,), 300.0), rtol=0.05)
    for weight, state in ((torch.zeros(2, 10), prior), (torch.ones(2, 10), described(learner, index=1))):
        kept = learner.adapted(state, features, y, weight)
        for name, value in state.items():
            torch.testing.assert_close(kept[name], value, atol=1e-5, rtol=1e-4)


def test_readers_cover_the_columns_and_an_id_leaves_the_venue_open(
    learner: MixedReaders, material: TokenizedPapers
) -> None:
    ends = [reader.columns for reader in learner.readers]
    assert ends == [(0, 2), (2, 4), (4, 6), (FIRST_KEYWORD, FIRST_KEYWORD + len(material.papers.labels))]
    assert learner.readers[3].labels == material.papers.labels
    assert learner.readers[0].shots == len(material.papers.rows("train", "pages"))
    state = learner.describe("id", {"index": torch.tensor([0, 3])})
    answer = learner.predict(learner.encode({"x": material.x[:2]}), state)
    assert answer.shape == (2, 1, ends[-1][1])
    known = learner.years.table[:, 4] > 0
    torch.testing.assert_close(state["units"][0, 0], learner.years.table[known, 2].mean())
    with pytest.raises(ConfigInvalid, match="keywords: 2 in the data"):
        learner.name_keywords(("a", "b"))


def test_training_lowers_the_loss_of_key_words(material: TokenizedPapers) -> None:
    made = fresh(len(material.papers.labels))
    paper_tasks.prepare(made, material)
    made.train()
    optimizer = torch.optim.AdamW([value for value in made.parameters() if value.requires_grad], lr=1e-2)
    losses = []
    for _ in range(30):
        batch = material.draw(np.random.default_rng(0), EpisodeShape(1, (1, 1), (0, 0), 64))
        optimizer.zero_grad()
        losses.append(made.backward(batch))
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]
    paper_tasks.finish(made, material)
    assert 0.04 < float(made.threshold) < 0.7


def test_the_measures_are_those_of_the_textbook() -> None:
    truth, answer = np.array([[1, 0, 1], [0, 0, 1]], bool), np.array([[1, 1, 0], [0, 0, 1]], bool)
    assert micro_f1(answer, truth) == pytest.approx(2 * 2 / (3 + 3))
    assert micro_f1(answer & False, truth & False) == 0
    chance = np.array([[0.9, 0.2, 0.6], [0.1, 0.3, 0.65]])
    assert 0.3 < best_threshold(chance, truth) <= 0.6
    x = torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]])
    level_and_slope = logistic(x, torch.tensor([0.0, 0, 1, 0, 1, 1]))
    assert level_and_slope.tolist() == pytest.approx([2 * np.log(2), -np.log(2)], abs=0.05)
    values = np.random.default_rng(0).normal(size=400)
    row = resampled("a", "mean", lambda at: float(values[at].mean()), 400, {"same": lambda at: 0.0}, seed=0)
    assert row.interval == pytest.approx(1.96 * values.std() / 20, rel=0.15)
    assert row.comparisons[0].difference == pytest.approx(values.mean())


def test_key_words_begin_as_common_as_they_are_in_the_venue_year(material: TokenizedPapers) -> None:
    some = material.papers
    rows = some.rows("train", "keywords")
    one = torch.tensor([[float(papers.VENUES.index("ijcai")), 2021.0]])
    here = rows[(some.metadata[rows] == one.numpy()).all(1)]
    usual = some.keywords[some.rows("train", "keywords")].mean(0)
    expected = (some.keywords[here].sum(0) + 5 * usual) / (len(here) + 5)
    at_first = fresh(len(some.labels))
    paper_tasks.prepare(at_first, material)
    torch.nn.init.zeros_(at_first.words_by_context.weight)
    found = torch.sigmoid(at_first.words.bias + at_first.context_of(one))[0]
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-3)
    later, latest = (torch.tensor([[float(one[0, 0]), year]]) for year in (2024.0, 2022.0))
    torch.testing.assert_close(at_first.context_of(later), at_first.context_of(latest))
