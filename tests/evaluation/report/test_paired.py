"""Ranks by paired differences, and rows of several seeds."""

import logging

import numpy as np
import pytest
import scipy.stats
import torch
from safetensors.torch import save_file

from lcg_lightning.evaluation.leaderboard import build, write_leaderboard
from lcg_lightning.evaluation.metrics.likelihood import OnManifold
from tests.evaluation.report import made
from tests.evaluation.test_leaderboard import FINGERPRINTS

N = 400


def rows(folder):
    return {row["method"]: row for row in build(folder)}


def correlated(gain, noise=0.02):
    """Identity distances of two methods: each varies much over samples, their difference by ``noise`` around gain."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.1, 0.9, N)
    return {"id_distance": base}, {"id_distance": base + gain + noise * rng.standard_normal(N)}


def test_a_difference_is_seen_where_intervals_overlap(tmp_path):
    """The standard error of the difference is known in closed form."""
    a, b = correlated(gain=0.01)
    made.run(tmp_path / "a", a, method="a")
    made.run(tmp_path / "b", b, method="b")
    found = rows(tmp_path)
    assert found["a"]["intervals"]["id_distance"][1] > found["b"]["intervals"]["id_distance"][0]
    assert [found[name]["ranks"]["id_distance"] for name in "ab"] == [1, 2]
    gap = found["b"]["differences"]["id_distance"]
    differences = b["id_distance"] - a["id_distance"]
    half = 1.96 * differences.std() / N**0.5
    assert gap["value"] == pytest.approx(differences.mean())
    assert [gap["low"], gap["high"]] == pytest.approx([gap["value"] - half, gap["value"] + half], abs=0.15 * half)
    assert gap["from"] == "a"
    assert "id_distance" not in found["a"]["differences"]


def test_a_rank_is_shared_where_the_interval_holds_zero(tmp_path):
    a, b = correlated(gain=0.001)
    far = {"id_distance": a["id_distance"] + 0.1}
    for name, figures in {"a": a, "b": b, "again": a, "far": far}.items():
        made.run(tmp_path / name, figures, method=name)
    write_leaderboard(tmp_path)
    assert {name: row["ranks"]["id_distance"] for name, row in rows(tmp_path).items()} == {
        "a": 1,
        "b": 1,
        "again": 1,
        "far": 4,
    }
    text = (tmp_path / "leaderboard.md").read_text()
    assert f"**{a['id_distance'].mean():.3f}**¹ [" in text
    assert f"| {far['id_distance'].mean():.3f}⁴ [" in text


@pytest.mark.parametrize(("more", "ranks"), [(5, [1, 1]), (6, [1, 2])])
def test_a_difference_of_few_hits_counts_where_a_sign_test_finds_one(more, ranks, tmp_path):
    hits = np.ones(N)
    fewer = hits.copy()
    fewer[:more] = 0
    assert (scipy.stats.binomtest(more, more).pvalue < 0.05) == (ranks == [1, 2])
    for name, values in {"a": hits, "b": fewer}.items():
        made.run(tmp_path / name, {"acc_joint": values}, method=name)
    found = rows(tmp_path)
    assert [found[name]["ranks"]["acc_joint"] for name in "ab"] == ranks


def test_figures_that_differ_by_rounding_share_a_rank(tmp_path):
    a, _ = correlated(gain=0.0)
    made.run(tmp_path / "a", a, method="a")
    made.run(tmp_path / "b", {"id_distance": a["id_distance"] + 1e-8}, method="b")
    assert {row["ranks"]["id_distance"] for row in build(tmp_path)} == {1}


@pytest.mark.parametrize(
    "change",
    [
        *({"fingerprints": FINGERPRINTS | {key: "77"}} for key in ("asked", "store", "generator")),
        {"columns": [made.Column("id_distance", "Identity distance", higher_is_better=False, basis={"judge": "x @9"})]},
        {"seed": 1},
    ],
)
def test_other_questions_are_never_paired(change, tmp_path):
    a, b = correlated(gain=0.1)
    made.run(tmp_path / "a", a, method="a")
    made.run(tmp_path / "b", b, method="b", **change)
    assert all(row["ranks"] == {} == row["differences"] for row in build(tmp_path))


def test_a_method_that_knows_the_truth_takes_no_rank(tmp_path):
    a, b = correlated(gain=0.1)
    made.run(tmp_path / "oracle", a, method="oracle", ranked=False)
    made.run(tmp_path / "b", b, method="b")
    made.run(tmp_path / "c", {"id_distance": b["id_distance"] + 0.1}, method="c")
    found = rows(tmp_path)
    assert [found[name]["ranks"].get("id_distance") for name in ("oracle", "b", "c")] == [None, 1, 2]
    assert found["oracle"]["differences"]["id_distance"]["high"] < -0.09


def test_samples_of_another_run_are_not_compared(tmp_path, caplog):
    a, b = correlated(gain=0.1)
    made.run(tmp_path / "a", a, method="a")
    made.run(tmp_path / "b", b, method="b")
    (tmp_path / "b/samples.safetensors").write_bytes((tmp_path / "a/samples.safetensors").read_bytes())
    with caplog.at_level(logging.WARNING):
        assert all(row["ranks"] == {} for row in build(tmp_path))
    assert "these are of another run" in caplog.text
    (tmp_path / "b/samples.safetensors").write_bytes(b"half")
    assert all(row["ranks"] == {} for row in build(tmp_path))
    assert "cannot be read" in caplog.text
    for kind in (torch.bfloat16, torch.float8_e4m3fn):  # types that NumPy lacks
        caplog.clear()
        save_file({"id_distance": torch.ones(len(b["id_distance"])).to(kind)}, tmp_path / "b/samples.safetensors")
        assert all(row["ranks"] == {} for row in build(tmp_path))
        assert "not compared in pairs" in caplog.text  # whether or not NumPy knows the type


def test_seeds_of_one_method_are_one_row(tmp_path):
    """Mean and spread over the seeds; the interval has the seeds' part in closed form."""
    rng = np.random.default_rng(0)
    figures = [{"id_distance": np.full(N, value) + 0.1 * rng.uniform(size=N)} for value in (0.3, 0.35, 0.4)]
    for seed, each in enumerate(figures):
        made.run(tmp_path / str(seed), each, **made.trained(seed))
    made.run(tmp_path / "repeated", figures[0], **made.trained(0))
    made.run(tmp_path / "scale", figures[0], **made.trained(0, scale=4.0))
    made.run(tmp_path / "wider", figures[0], **made.trained(512, scale=5.0, prior_arguments="wide"))
    made.run(tmp_path / "widest", figures[0], **made.trained(1024, scale=5.0, prior_arguments="widest"))
    several, repeated, scale, *others = sorted(build(tmp_path), key=lambda row: (-len(row["runs"]), row["scale"]))
    assert [len(row["runs"]) for row in others] == [1, 1]  # networks of other sizes
    values = [each["id_distance"].mean() for each in figures]
    assert several["id_distance"] == pytest.approx(np.mean(values))
    assert several["spreads"]["id_distance"] == pytest.approx(np.std(values, ddof=1))
    assert [run["record"] for run in several["runs"]] == [f"{seed}/record.json" for seed in range(3)]
    assert (several["prior"], repeated["prior"], len(scale["runs"])) == ("3 trained", "0" * 8, 1)
    half = scipy.stats.t.ppf(0.975, 2) * np.std(values, ddof=1) / 3**0.5
    low, high = several["intervals"]["id_distance"]
    assert [low, high] == pytest.approx([np.mean(values) - half, np.mean(values) + half], rel=0.01)


def test_differences_cover_the_seeds(tmp_path):
    """Each seed alone is far beyond its interval over samples; three seeds that disagree are no evidence."""
    rng = np.random.default_rng(0)
    made.run(tmp_path / "other", {"id_distance": rng.uniform(0.2, 0.4, N)}, method="other")
    for seed, value in enumerate((0.3, 0.35, 0.4)):
        made.run(tmp_path / str(seed), {"id_distance": np.full(N, value) + 0.01}, **made.trained(seed))
    assert {row["method"]: row["ranks"]["id_distance"] for row in build(tmp_path)} == {"other": 1, "lcg": 1}


def test_a_method_that_diverged_is_a_row_that_says_so(tmp_path):
    a, _ = correlated(gain=0.1)
    made.run(tmp_path / "a", a, method="a")
    made.records.write(
        made.record(method="b", n=N, metrics={}, failure="latents | not\nfinite"), tmp_path / "b/record.json"
    )
    write_leaderboard(tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert "\nb failed: latents | not finite\n" in text
    assert "| b | 2 |" in text
    assert rows(tmp_path)["b"]["failure"] == "latents | not\nfinite"


def test_where_neither_side_is_better_nobody_is_ranked_and_real_data_is_the_mark(tmp_path):
    """Distances from the row of real data, not from the highest figure, which has no better side."""
    columns = [made.COLUMNS[0], *OnManifold.columns]
    rng = np.random.default_rng(0)
    base = rng.standard_normal(N)
    for name, more in {"modes": 3.0, "lcg": 1.0, "real": 0.0}.items():
        figures = {"acc_joint": np.arange(N) % 2.0, "elbo": base + more}
        made.run(tmp_path / name, figures, method=name, columns=columns, ranked=name != "real")
    write_leaderboard(tmp_path)
    found = rows(tmp_path)
    assert all("elbo" not in row["ranks"] for row in found.values())
    assert all("acc_joint" in found[name]["ranks"] for name in ("modes", "lcg"))
    gaps = {name: row["differences"]["elbo"] for name, row in found.items() if name != "real"}
    assert {name: (gap["from"], round(gap["value"], 6)) for name, gap in gaps.items()} == {
        "modes": ("real", 3.0),
        "lcg": ("real", 1.0),
    }
    assert "elbo" not in found["real"]["differences"]
    hint = "ELBO (nats) has no ranks, as neither more nor less is better: read it against the row real."
    markdown, page = ((tmp_path / f"leaderboard.{kind}").read_text() for kind in ("md", "html"))
    assert hint in markdown
    assert f"{base.mean() + 3:.1f} [" in markdown  # no rank after it
    assert f"**{base.mean() + 3:.1f}" not in markdown
    assert f'title="{hint}"' in page
    assert f"<strong>{base.mean() + 3:.1f}" not in page
