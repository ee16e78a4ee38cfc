"""Every merge method against its paper's formula in float64, and the properties that all of them have."""

import numpy as np
import papers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from speechft.errors import UsageError
from speechft.merge.methods._tensors import tensor_seed
from speechft.merge.registry import METHODS, described, method_named

SHAPES = [(), (1,), (7,), (5, 6), (3, 4, 5)]
NAMES = list(METHODS)


def models(shape, count, seed=0, step=0.1, kind=np.float64):
    generator = np.random.default_rng(seed)
    base = generator.standard_normal(shape)
    common = generator.standard_normal(shape)  # task vectors of one origin have something in common
    return base.astype(kind), [
        (base + step * (common + generator.standard_normal(shape))).astype(kind) for _ in range(count)
    ]


def count_for(name):
    return METHODS[name].most or max(2, METHODS[name].least)


def statistics_for(name, base, count, seed=5):
    """Positive numbers, or the Gram matrices of random inputs."""
    generator = np.random.default_rng(seed)
    if METHODS[name].statistics == "fisher":
        return [generator.random(base.shape) + 0.1 for _ in range(count + 1)]
    inputs = [generator.standard_normal((40, base.shape[-1] if base.ndim else 1)) for _ in range(count + 1)]
    return [rows.T @ rows / len(rows) for rows in inputs]


def call(name, base, tuned, alpha, **parameters):
    """A method on arrays, with its defaults and, where it needs them, statistics."""
    method = METHODS[name]
    values = {**method.read({}, len(tuned)), **parameters}
    base = np.asarray(base)
    if method.statistics and "statistics" not in values:
        matrix = base.ndim == 2 or method.statistics == "fisher"
        values["statistics"] = statistics_for(name, base, len(tuned)) if matrix else [None] * (len(tuned) + 1)
    if method.statistics:
        values["statistics"] = [
            one if one is None else torch.from_numpy(np.asarray(one)) for one in values["statistics"]
        ]
    merged = method.function(
        torch.from_numpy(base), [torch.from_numpy(np.asarray(one)) for one in tuned], alpha, **values
    )
    return merged.numpy()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("alpha", [0.25, 0.6])
def test_as_the_papers_write_them(shape, alpha):
    base, tuned = models(shape, 3)
    near = {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(call("linear", base, tuned, alpha), papers.linear(base, tuned, alpha), **near)
    weights = [1.0, 0.3, -0.5]
    np.testing.assert_allclose(
        call("task_arithmetic", base, tuned, alpha, weights=weights),
        papers.task_arithmetic(base, tuned, alpha, weights), **near,
    )  # fmt: skip
    for density in (0.2, 0.5, 1.0):
        np.testing.assert_allclose(
            call("ties", base, tuned, alpha, density=density), papers.ties(base, tuned, alpha, density), **near
        )
    information = statistics_for("fisher", base, 3)
    np.testing.assert_allclose(
        call("fisher", base, tuned, alpha, statistics=information),
        papers.fisher(base, tuned, alpha, information), **near,
    )  # fmt: skip
    for decay in (1.0, 0.7):
        np.testing.assert_allclose(
            call("average", base, tuned, alpha, decay=decay), papers.average(base, tuned, alpha, decay), **near
        )
    if base.size > 6:  # of fewer elements hardly any angle, or any share, is left to speak of
        np.testing.assert_allclose(
            call("model_stock", base, tuned, alpha), papers.model_stock(base, tuned, alpha), **near
        )
        np.testing.assert_allclose(
            call("breadcrumbs", base, tuned, alpha, smallest=0.4, largest=0.1),
            papers.breadcrumbs(base, tuned, alpha, 0.4, 0.1), **near,
        )  # fmt: skip
        np.testing.assert_allclose(
            call("slerp", base, tuned[:1], alpha), papers.slerp(base, tuned[:1], alpha), rtol=1e-7, atol=1e-9
        )
    if len(shape) == 2:
        grams = statistics_for("regmean", base, 3)
        for scale in (1.0, 0.9, 0.0):
            np.testing.assert_allclose(
                call("regmean", base, tuned, alpha, statistics=grams, scale=scale),
                papers.regmean(base, tuned, alpha, grams, scale), **near,
            )  # fmt: skip
    else:
        np.testing.assert_allclose(call("regmean", base, tuned, alpha), papers.linear(base, tuned, alpha), **near)


def test_regmean_is_nearest_to_every_model_on_its_own_inputs():
    """Its definition, solved as one least-squares problem with numpy."""
    generator = np.random.default_rng(1)
    base, tuned = models((4, 6), 2)
    inputs = [generator.standard_normal((50, 6)) @ generator.standard_normal((6, 6)) for _ in range(3)]
    alpha, shares = 0.3, [0.7, 0.15, 0.15]
    rows = np.concatenate([np.sqrt(share / 50) * x for share, x in zip(shares, inputs, strict=True)])
    wanted = np.concatenate([np.sqrt(s / 50) * x @ w.T for s, x, w in zip(shares, inputs, [base, *tuned], strict=True)])
    best = np.linalg.lstsq(rows, wanted, rcond=None)[0].T
    grams = [x.T @ x / 50 for x in inputs]
    np.testing.assert_allclose(call("regmean", base, tuned, alpha, statistics=grams, scale=1.0), best, rtol=1e-8)


def test_regmean_with_inputs_that_are_always_zero():
    base, tuned = models((4, 6), 2)
    grams = statistics_for("regmean", base, 2)
    for gram in grams:
        gram[2] = gram[:, 2] = 0.0
    merged = call("regmean", base, tuned, 0.5, statistics=grams)
    np.testing.assert_allclose(merged[:, 2], papers.linear(base, tuned, 0.5)[:, 2])
    assert np.isfinite(merged).all()


def test_slerp_of_a_small_angle_and_where_there_is_no_arc():
    base = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    other = (base + 1e-4 * np.random.default_rng(1).standard_normal(10_000)).astype(np.float32)
    merged = call("slerp", base, [other], 0.25).astype(np.float64)
    exact = papers.slerp(base.astype(np.float64), [other.astype(np.float64)], 0.25)
    np.testing.assert_allclose(merged, exact, atol=3e-7)
    zero, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    np.testing.assert_allclose(call("slerp", zero, [ones], 0.25), 0.25)
    np.testing.assert_allclose(call("slerp", ones, [-ones], 0.25), 0.5)  # opposite: no arc is shorter than another
    # half of the way between directions at a right angle keeps their length, where a line would cut the corner
    x, y = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    np.testing.assert_allclose(call("slerp", x, [y], 0.5), [np.sqrt(0.5), np.sqrt(0.5)])


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della"])
def test_what_is_dropped_at_random(name):
    """Each element is either dropped or divided by its probability to stay; how often is as the paper says."""
    base, tuned = models((40, 60), 1)
    tau, density, epsilon = tuned[0] - base, 0.4, 0.3
    extra = {"epsilon": epsilon} if name == "della" else {}
    probability = (
        papers.magprune_probabilities(tau, density, epsilon) if name == "della" else np.full((40, 60), density)
    )
    counts, draws = np.zeros((40, 60)), 200
    for seed in range(draws):
        change = call(name, base, tuned, 0.5, density=density, seed=seed, **extra) - base
        stays = np.abs(change) > 1e-12
        np.testing.assert_allclose(change[stays], (0.5 * tau / probability)[stays], rtol=1e-6, atol=1e-9)
        counts += stays
    deviation = np.sqrt(probability * (1 - probability) / draws)
    assert np.abs(counts / draws - probability).max() < 5 * deviation.max()
    assert abs((counts / draws - probability).mean()) < 5 * deviation.mean() / np.sqrt(counts.size)
    order = np.argsort(np.abs(tau), axis=1)
    small, large = (
        np.take_along_axis(counts, order[:, :10], 1).mean(),
        np.take_along_axis(counts, order[:, -10:], 1).mean(),
    )
    assert (large - small > 0.15 * draws) == (name == "della")  # only MagPrune looks at magnitudes


def test_dare_is_linear_on_average():
    base, tuned = models((4, 5), 3)
    mean = np.mean([call("dare_linear", base, tuned, 0.5, seed=seed) for seed in range(1500)], axis=0)
    np.testing.assert_allclose(mean, papers.linear(base, tuned, 0.5), atol=0.02)
    total = call("dare_linear", base, tuned, 0.5, density=1.0, normalize=False)
    np.testing.assert_allclose(total, papers.task_arithmetic(base, tuned, 0.5, [1, 1, 1]), rtol=1e-10)


def test_dare_ties_and_della_elect_what_was_kept():
    base, tuned = models((6, 8), 3)
    for name in ("dare_ties", "della"):
        kept = [(call(name, base, [one], 1.0, seed=3) - base) for one in tuned]  # one model elects itself
        together = call(name, base, tuned, 1.0, seed=3)
        np.testing.assert_allclose(
            together, base + papers.elect([np.where(abs(k) < 1e-12, 0, k) for k in kept]), rtol=1e-9
        )


def test_draws_depend_on_seed_name_and_values_alone():
    base, tuned = models((9, 9), 2)
    for name in ("dare_linear", "dare_ties", "della"):
        one = call(name, base, tuned, 0.5, seed=tensor_seed(0, "a"))
        torch.manual_seed(123)
        torch.rand(1000)
        assert np.array_equal(one, call(name, base, tuned, 0.5, seed=tensor_seed(0, "a")))
        assert not np.array_equal(one, call(name, base, tuned, 0.5, seed=tensor_seed(0, "b")))
        assert not np.array_equal(one, call(name, base, tuned, 0.5, seed=tensor_seed(1, "a")))
        twice = call(name, base, [tuned[0]], 0.5, seed=0) - base, call(name, base, [tuned[1]], 0.5, seed=0) - base
        assert not np.array_equal(twice[0] == 0, twice[1] == 0)  # models do not lose the same elements


shapes = st.sampled_from([(), (1,), (5,), (3, 4), (0,), (2, 2, 3)])


@st.composite
def families(draw, least=1, most=3):
    shape = draw(shapes)
    one = arrays.arrays(np.float32, shape, elements=st.floats(-8, 8, width=32))
    return draw(one), [draw(one) for _ in range(draw(st.integers(least, most)))]


def fitted(name, tuned):
    method = METHODS[name]
    tuned = tuned[: method.most] if method.most else tuned
    return (tuned * method.least)[: max(method.least, len(tuned))]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(family=families(), alpha=st.floats(0, 1))
def test_endpoints_idempotence_and_type(name, family, alpha):
    base, tuned = family
    tuned = fitted(name, tuned)
    assert np.array_equal(call(name, base, tuned, 0.0), base)  # α = 0 is θ0, bit for bit
    assert np.array_equal(call(name, base, [base] * len(tuned), alpha), base)  # no update, no change
    merged = call(name, base, tuned, alpha)
    assert merged.dtype == np.float32 and merged.shape == base.shape and np.isfinite(merged).all()
    whole = {
        "ties": {"density": 1.0}, "dare_linear": {"density": 1.0}, "dare_ties": {"density": 1.0},
        "della": {"density": 1.0, "epsilon": 0.0}, "breadcrumbs": {"smallest": 0.0, "largest": 0.0},
    }  # fmt: skip
    if METHODS[name].least == 1:  # α = 1 with one model is θ', unless something of it was left out
        one = call(name, base, tuned[:1], 1.0, **whole.get(name, {}))
        if name in whole:
            np.testing.assert_allclose(one, tuned[0], atol=2e-6)
        else:
            assert np.array_equal(one, tuned[0])


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].most != 1 and name != "average"])
@settings(max_examples=20, deadline=None)
@given(family=families(2, 3), alpha=st.floats(0, 1), data=st.data())
def test_the_order_of_models_does_not_matter(name, family, alpha, data):
    base, tuned = family
    order = data.draw(st.permutations(range(len(tuned))))
    statistics = {}
    if METHODS[name].statistics and (base.ndim == 2 or METHODS[name].statistics == "fisher"):
        first, *rest = statistics_for(name, base, len(tuned))
        statistics = {"statistics": [first, *rest]}
    one = call(name, base, tuned, alpha, **statistics)
    if statistics:
        statistics = {"statistics": [first, *[rest[index] for index in order]]}
    other = call(name, base, [tuned[index] for index in order], alpha, **statistics)
    if "ties" in name or name == "della":  # a sum that is zero but for rounding has no sign to elect
        kept = [call(name, base, [model], 1.0).astype(np.float64) - base for model in tuned]  # one elects itself
        clear = np.abs(sum(kept)) > 1e-3
        one, other = one[clear], other[clear]
    np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("factor", [4.0, 0.5])
def test_scaling_all_models_scales_the_result(name, factor):
    """No method has a unit of its own. Powers of two, so that nothing is rounded otherwise."""
    base, tuned = models((6, 5), count_for(name), kind=np.float32)
    scaled = call(name, base * np.float32(factor), [one * np.float32(factor) for one in tuned], 0.5)
    if METHODS[name].draws:  # what is drawn follows from the values
        assert scaled.shape == base.shape
        return
    np.testing.assert_allclose(scaled, factor * call(name, base, tuned, 0.5), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_shifting_the_update_by_alpha(name):
    """θ̂ − θ0 grows with α in proportion, but for those whose weights of models depend on it."""
    base, tuned = models((6, 5), count_for(name))
    change = [call(name, base, tuned, alpha) - base for alpha in (0.2, 0.4)]
    if name in ("slerp", "fisher", "regmean"):
        assert np.linalg.norm(change[1]) > np.linalg.norm(change[0])
    else:
        np.testing.assert_allclose(change[1], 2 * change[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_arithmetic_is_float32_whatever_is_stored(name, kind):
    base, tuned = models((6, 5), count_for(name), kind=np.float32)
    lower = [torch.from_numpy(one).to(kind) for one in (base, *tuned)]
    method = METHODS[name]
    values = method.read({}, len(tuned))
    if method.statistics:
        values["statistics"] = [torch.from_numpy(one) for one in statistics_for(name, base, len(tuned))]
    merged = method.function(lower[0], lower[1:], 0.3, **values)
    assert merged.dtype == (torch.float64 if kind == torch.float64 else torch.float32)
    raised = [one.double() if kind == torch.float64 else one.float() for one in lower]
    assert torch.equal(merged, method.function(raised[0], raised[1:], 0.3, **values))
    before = [one.clone() for one in lower]
    method.function(lower[0], lower[1:], 0.7, **values)
    assert all(torch.equal(a, b) for a, b in zip(before, lower, strict=True))  # parents are left as they are


def test_equal_statistics_give_linear():
    base, tuned = models((6, 5), 3)
    expected = papers.linear(base, tuned, 0.3)
    for name in ("fisher", "regmean"):
        same = [statistics_for(name, base, 3)[0]] * 4
        np.testing.assert_allclose(call(name, base, tuned, 0.3, statistics=same), expected, rtol=1e-9)
    stock = call("model_stock", base, [tuned[0], tuned[0]], 1.0)
    np.testing.assert_allclose(stock, tuned[0], rtol=1e-9)  # models in one place: the centre is there


@pytest.mark.parametrize(
    ("name", "given_", "count", "message"),
    [
        ("linear", {"density": 0.2}, 1, "linear has no parameter 'density'; known: linear has none"),
        ("ties", {"densty": 0.2}, 1, "ties has no parameter 'densty'; known: density, scope, weights"),
        ("ties", {"density": "0"}, 1, "density is '0'; give a number above 0 to 1"),
        ("ties", {"density": "much"}, 1, "density is 'much'; give a number above 0 to 1"),
        ("ties", {"density": float("nan")}, 1, "density is nan; give a number above 0 to 1"),
        ("ties", {"weights": "1,2"}, 3, "weights has 2 numbers for 3 fine-tuned models; give 3"),
        ("ties", {"weights": "1,x,2"}, 3, "weights is '1,x,2'; give numbers, one for each fine-tuned model"),
        ("dare_linear", {"seed": "1.5"}, 1, "seed is '1.5'; give a whole number at least 0"),
        ("dare_linear", {"normalize": "maybe"}, 1, "normalize is 'maybe'; give true or false"),
        ("slerp", {}, 2, "slerp takes one fine-tuned model; linear takes several"),
        ("model_stock", {}, 1, "model_stock takes at least 2 fine-tuned models; linear takes one"),
    ],
)
def test_wrong_parameters(name, given_, count, message):
    with pytest.raises(UsageError) as error:
        method_named(name).read(given_, count)
    assert str(error.value) == message


def test_impossible_shares():
    base, tuned = models((6, 5), 1)
    with pytest.raises(UsageError, match="leave nothing"):
        call("breadcrumbs", base, tuned, 0.5, smallest=0.9, largest=0.1)
    with pytest.raises(UsageError, match="is no probability"):
        call("della", base, tuned, 0.5, density=0.9, epsilon=0.4)
    for name in ("fisher", "regmean"):
        with pytest.raises(UsageError, match="cannot extrapolate"):
            call(name, base, tuned, 1.5)


def test_the_registry_describes_what_the_functions_take():
    import inspect

    for entry in described():
        method = METHODS[entry["method"]]
        keywords = {
            name: one.default
            for name, one in inspect.signature(method.function).parameters.items()
            if one.kind is inspect.Parameter.KEYWORD_ONLY and name not in ("statistics", "thresholds")
        }
        assert keywords == {one["name"]: one["default"] for one in entry["parameters"]}
        assert entry["paper"] and entry["formula"]
    read = method_named("dare_linear").read({"density": "0.3", "weights": "1,2", "normalize": "False", "seed": "7"}, 2)
    assert read == {"density": 0.3, "weights": [1.0, 2.0], "normalize": False, "seed": 7}
