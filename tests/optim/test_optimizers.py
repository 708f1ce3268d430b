"""SGD and Adam do what PyTorch's do, in place, and say what is wrong with what they are given."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from tinyqnn import Tensor, nn
from tinyqnn.kernels import jit, updates, using
from tinyqnn.optim import SGD, Adam
from tinyqnn.optim.optimizer import BLOCK, blocks

SHAPES = [(), (3,), (2, 3), (4, 2, 3, 3)]

SGD_OPTIONS = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.01},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.3},
    {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
]
ADAM_OPTIONS = [
    {},
    {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-3},
    {"lr": 0.1, "weight_decay": 0.01},
    {"lr": 0.1, "betas": (0.0, 0.5)},
]
BOTH = [(SGD, options) for options in SGD_OPTIONS] + [(Adam, options) for options in ADAM_OPTIONS]


def parameters(rng, shapes=SHAPES, dtype=np.float64):
    return [Tensor(np.asarray(rng.normal(size=shape), dtype), requires_grad=True) for shape in shapes]


def give_gradients(params, rng):
    for p in params:
        p.grad = np.asarray(rng.normal(size=p.shape), p.dtype)


def sgd_by_the_book(p, gradients, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    m = None
    for g in gradients:
        g = g + weight_decay * p
        if momentum:
            m = g if m is None else momentum * m + (1 - dampening) * g
            g = g + momentum * m if nesterov else m
        p = p - lr * g
    return p


def adam_by_the_book(p, gradients, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        p = p - lr * (m / (1 - betas[0] ** t)) / (math.sqrt(v / (1 - betas[1] ** t)) + eps)
    return p


@pytest.mark.parametrize(("kind", "options"), BOTH)
def test_one_number_moves_by_the_formula(kind, options, rng):
    gradients = rng.normal(size=5).tolist()
    p = Tensor(np.array(0.7), requires_grad=True)
    optimizer = kind([p], **options)
    for g in gradients:
        p.grad = np.array(g)
        optimizer.step()
    book = sgd_by_the_book if kind is SGD else adam_by_the_book
    assert p.item() == pytest.approx(book(0.7, gradients, **options), rel=1e-13)


@pytest.mark.parametrize(("kind", "options"), BOTH)
def test_moves_as_pytorch_does(kind, options, rng):
    torch = pytest.importorskip("torch")
    ours = parameters(rng, [*SHAPES, (BLOCK + 5,)])
    theirs = [torch.tensor(p.data, requires_grad=True) for p in ours]
    mine, other = kind(ours, **options), getattr(torch.optim, kind.__name__)(theirs, **options)
    for step in range(6):
        give_gradients(ours, rng)
        for p, q in zip(ours, theirs):
            q.grad = torch.tensor(p.grad)
        if step == 3:
            ours[1].grad = theirs[1].grad = None  # a parameter that took no part
        mine.step()
        other.step()
        for p, q in zip(ours, theirs):
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("kind", "options"), BOTH)
def test_goes_on_from_the_state_of_pytorchs_optimizer(kind, options, rng):
    torch = pytest.importorskip("torch")
    ours = parameters(rng)
    theirs = [torch.tensor(p.data, requires_grad=True) for p in ours]
    mine, other = kind(ours, lr=7.0), getattr(torch.optim, kind.__name__)(theirs, **options)

    def step(optimizers):
        for p, q in zip(ours, theirs):
            p.grad = rng.normal(size=p.shape)
            q.grad = torch.tensor(p.grad)
        for optimizer in optimizers:
            optimizer.step()

    step([other])
    for p, q in zip(ours, theirs):
        p.data[...] = q.detach().numpy()
    state = other.state_dict()
    for kept in state["state"].values():
        if kept.get("momentum_buffer", 0) is None:
            del kept["momentum_buffer"]
    mine.load_state_dict(state)
    step([mine, other])
    for p, q in zip(ours, theirs):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("kind", "options"), BOTH)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_step_is_taken_in_place_and_keeps_the_type(kind, options, dtype, rng):
    params = parameters(rng, dtype=dtype)
    arrays = [p.data for p in params]
    before = [a.copy() for a in arrays]
    optimizer = kind(params, **options)
    for _ in range(2):
        give_gradients(params, rng)
        gradients = [p.grad.copy() for p in params]
        optimizer.step()
        assert all(np.array_equal(p.grad, g) for p, g in zip(params, gradients))
    assert all(p.data is a and a.dtype == dtype for p, a in zip(params, arrays))
    assert all((a != b).all() for a, b in zip(arrays, before))


@pytest.mark.parametrize(("kind", "options"), BOTH)
@pytest.mark.parametrize("layout", ["channels last", "gaps", "odd strides of length 1", "C"])
def test_memory_order_and_block_size_change_no_bit(kind, options, layout, rng):
    shape = (40, 90, 3, 4)
    assert math.prod(shape) > BLOCK
    values = rng.normal(size=shape).astype(np.float32)
    gradients = rng.normal(size=(3, *shape)).astype(np.float32)
    if layout == "channels last":
        data = np.ascontiguousarray(values.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    elif layout == "gaps":
        data = np.zeros((40, 90, 3, 8), np.float32)[..., ::2]
    elif layout == "odd strides of length 1":
        data = np.lib.stride_tricks.as_strided(np.zeros(shape, np.float32), (1, *shape), (28, 4320, 48, 16, 4))
        assert np.zeros_like(data).strides != data.strides
        values, gradients = values[None], gradients[:, None]
    else:
        data = values.copy()
    data[...] = values
    whole = Tensor(data, requires_grad=True)
    axis = values.ndim - 4
    pieces = [Tensor(piece.copy(), requires_grad=True) for piece in np.split(values, 40, axis)]
    together, apart = kind([whole], **options), kind(pieces, **options)
    for gradient in gradients:
        whole.grad = gradient
        for piece, g in zip(pieces, np.split(gradient, 40, axis)):
            piece.grad = g.copy()
        together.step()
        apart.step()
    assert whole.data is data
    assert np.array_equal(whole.data, np.concatenate([piece.data for piece in pieces], axis))


@pytest.mark.parametrize(("kind", "options"), BOTH)
@pytest.mark.parametrize("shape", [(), (7,), (90, 1001)])
def test_compiled_updates_and_the_page_agree_bit_for_bit(kind, options, shape, rng):
    start, moved = rng.normal(size=shape).astype(np.float32), []
    gradients = rng.normal(size=(3, *shape)).astype(np.float32)
    for choice in ("reference", "compiled"):
        p = Tensor(start.copy(), requires_grad=True)
        optimizer = kind([p], **options)
        with using(choice):
            for gradient in gradients:
                p.grad = np.asarray(gradient)
                optimizer.step()
        moved.append([p.data.tobytes()] + [np.asarray(kept).tobytes() for kept in optimizer.state[p].values()])
    assert moved[0] == moved[1]


@pytest.mark.parametrize(("kind", "options"), BOTH)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_parameters_moved_together_go_where_each_goes_alone(kind, options, threads, rng, monkeypatch):
    sizes = [1, 700, 0, 3, 64, 1, 2000, 5]
    starts = [rng.normal(size=size).astype(np.float32) for size in sizes]
    gradients = [[rng.normal(size=size).astype(np.float32) for size in sizes] for _ in range(3)]
    together, alone = ([Tensor(start.copy(), requires_grad=True) for start in starts] for _ in range(2))
    monkeypatch.setattr(updates, "FEW", 0)
    monkeypatch.setattr(updates, "CHUNK", 100)
    one, many = kind(together, **options), [kind([p], **options) for p in alone]
    before = jit.get_num_threads()
    try:
        jit.set_num_threads(threads)
        for step, of_step in enumerate(gradients):
            for p, q, gradient in zip(together, alone, of_step):
                p.grad = q.grad = None if step == 1 and p.size == 64 else gradient
            for optimizer in (one, *many):
                optimizer.step()
    finally:
        jit.set_num_threads(before)
    for p, q, optimizer in zip(together, alone, many):
        np.testing.assert_array_equal(p.data, q.data)
        for name, kept in optimizer.state[q].items():
            np.testing.assert_array_equal(one.state[p][name], kept)


@pytest.mark.parametrize("choice", ["compiled", "reference"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(SGD, {"momentum": 0.5}), (SGD, {"momentum": 0.5, "nesterov": True}), (Adam, {"betas": (0.5, 0.5)})],
)
def test_what_a_silent_unit_leaves_behind_becomes_0_and_is_never_denormal(kind, options, choice):
    p = Tensor(np.zeros(40, np.float32), requires_grad=True)
    optimizer, tiny = kind([p], lr=0.1, **options), np.finfo(np.float32).tiny
    with using(choice):
        for step in range(160):
            p.grad = np.full(40, 1e-3 if step == 0 else 0, np.float32)
            p.grad[0] = 1
            optimizer.step()
            for name, average in optimizer.state[p].items():
                assert name == "step" or ((average == 0) | (abs(average) >= tiny)).all()
    for name, average in optimizer.state[p].items():
        if name != "step":
            assert average[0] > 0.4
            assert not average[1:].any()
    p.grad = np.full(40, np.nan, np.float32)  # and what is no number stays none
    with using(choice):
        optimizer.step()
    assert np.isnan(p.data).all()


def test_blocks_cover_every_element_once(rng):
    array = np.zeros(3 * BLOCK + 5)
    for (piece,) in blocks(array):
        assert piece.size <= BLOCK
        piece += 1
    assert (array == 1).all()


def test_pieces_of_arrays_in_different_memory_order_belong_together(rng):
    rows = rng.normal(size=(300, 200))
    columns = np.asfortranarray(rows)
    assert rows.size > BLOCK
    assert all(np.array_equal(a, b) for a, b in blocks(rows, columns))


def test_groups_have_rates_of_their_own():
    a, b, c = (Tensor(np.array([1.0]), requires_grad=True) for _ in range(3))
    optimizer = SGD([{"params": [a], "lr": 1.0}, {"params": [b], "weight_decay": 0.5}, {"params": c}], lr=0.1)
    for p in (a, b, c):
        p.grad = np.array([1.0])
    optimizer.step()
    assert [p.item() for p in (a, b, c)] == pytest.approx([0.0, 1 - 0.1 * 1.5, 0.9])
    optimizer.param_groups[2]["lr"] = 1.0
    optimizer.step()
    assert c.item() == pytest.approx(-0.1)


def test_zero_grad_forgets_and_a_step_without_gradients_changes_nothing(rng):
    params = parameters(rng)
    give_gradients(params, rng)
    optimizer = Adam(params)
    optimizer.zero_grad()
    before = [p.data.copy() for p in params]
    optimizer.step()
    assert all(p.grad is None and np.array_equal(p.data, b) for p, b in zip(params, before))


@pytest.mark.parametrize(("kind", "options"), BOTH)
def test_a_restored_optimizer_goes_on_bit_for_bit(kind, options, rng):
    first = parameters(rng, dtype=np.float32)
    optimizer = kind(first, **options)
    give_gradients(first, rng)
    optimizer.step()
    second = [Tensor(p.data.copy(), requires_grad=True) for p in first]
    other = kind(second, lr=5.0)
    other.load_state_dict(optimizer.state_dict())
    for _ in range(2):
        give_gradients(first, rng)
        for p, q in zip(first, second):
            q.grad = p.grad.copy()
        optimizer.step()
        other.step()
    assert all(np.array_equal(p.data, q.data) for p, q in zip(first, second))


def test_a_saved_state_is_a_copy(rng):
    params = parameters(rng)
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    give_gradients(params, rng)
    optimizer.step()
    state = optimizer.state_dict()
    kept = state["state"][1]["momentum_buffer"].copy()
    optimizer.step()
    assert np.array_equal(state["state"][1]["momentum_buffer"], kept)
    assert state["param_groups"][0]["params"] == [0, 1, 2, 3]


def test_a_state_that_does_not_fit_changes_nothing(rng):
    params = parameters(rng)
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    give_gradients(params, rng)
    optimizer.step()
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match=r"groups of \[4\] parameters, this optimizer has groups of \[3\]"):
        SGD(params[:3], lr=0.1).load_state_dict(state)
    reordered = SGD(params[::-1], lr=0.5, momentum=0.9)
    with pytest.raises(ValueError, match=r"momentum_buffer of parameter 0: expected shape \(4, 2, 3, 3\), got \(\)"):
        reordered.load_state_dict(state)
    assert reordered.state == {}
    assert reordered.param_groups[0]["lr"] == 0.5


def test_what_cannot_be_optimized_is_named():
    w = Tensor([1.0], requires_grad=True)
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"no parameters to optimize; pass model\.parameters\(\)"):
        SGD([], lr=0.1)
    with pytest.raises(TypeError, match="one Tensor; put it into a list"):
        SGD(w, lr=0.1)
    with pytest.raises(TypeError, match=r"not model\.named_parameters"):
        SGD(model.named_parameters(), lr=0.1)
    with pytest.raises(ValueError, match="nothing was computed for"):
        SGD([w * 2], lr=0.1)
    with pytest.raises(ValueError, match="twice"):
        SGD([{"params": [w]}, {"params": [w]}], lr=0.1)
    with pytest.raises(ValueError, match="group without parameters"):
        SGD([{"params": []}], lr=0.1)
    with pytest.raises(TypeError, match="no option rate; it has lr, momentum"):
        SGD([{"params": [w], "rate": 1}], lr=0.1)
    with pytest.raises(TypeError, match="do not mix"):
        SGD([{"params": [w]}, w], lr=0.1)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SGD, {"lr": -0.1}, "lr is a finite number from 0 upwards, got -0.1"),
        (SGD, {"lr": math.nan}, "lr is a finite number from 0 upwards, got nan"),
        (SGD, {"lr": 0.1, "momentum": -1.0}, "momentum"),
        (SGD, {"lr": 0.1, "nesterov": True}, "nesterov needs a momentum"),
        (Adam, {"eps": -1.0}, "eps"),
        (Adam, {"weight_decay": math.inf}, "weight_decay"),
        (Adam, {"betas": (0.9, 1.0)}, r"betas are two numbers from 0 to just below 1, got \(0.9, 1.0\)"),
    ],
)
def test_a_rate_that_is_no_rate_is_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind([Tensor([1.0], requires_grad=True)], **options)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("kind", "options"), [(SGD, {"momentum": 0.9}), (Adam, {})])
def test_a_parameter_that_was_given_other_data_is_refused_and_nothing_is_moved(kind, options, dtype):
    first, second = (Tensor(np.ones(4, dtype), requires_grad=True) for _ in range(2))
    optimizer = kind([first, second], lr=0.1, **options)
    for shape in ((4,), (30, 40)):
        before = first.data.copy()
        second.data = np.ones(shape, dtype)
        first.grad, second.grad = np.ones(4, dtype), np.ones(shape, dtype)
        if shape == (4,):
            optimizer.step()
    with pytest.raises(ValueError, match=r"shape \(30, 40\) has a \w+ of shape \(4,\): .* make a new optimizer"):
        optimizer.step()
    np.testing.assert_array_equal(first.data, before)


@pytest.mark.parametrize("gradient", [[1.0, 2.0], Tensor([1.0, 2.0]), 1.0])
def test_a_gradient_that_is_no_array_is_refused(gradient):
    w = Tensor([1.0, 2.0], requires_grad=True)
    w.grad = gradient
    with pytest.raises(TypeError, match=f"NumPy array, got {type(gradient).__name__};"):
        SGD([w], lr=0.1).step()


def test_only_contiguous_float32_arrays_of_one_shape_each_make_a_row():
    def ones(*shape):
        return np.ones(shape, np.float32)

    class Named(np.ndarray):
        pass

    assert updates.Row([ones(2, 3), ones()], [ones(2, 3), ones()]).serve
    assert updates.Row([ones(2, 3)], [pickle.loads(pickle.dumps(ones(2, 3)))]).serve  # its dtype is a second object
    for other in (np.ones((2, 3)), ones(2, 3, 1), ones(3, 2), ones(6), ones(2, 6)[:, ::2], ones(3, 2).T):
        assert not updates.Row([ones(2, 3)], [other]).serve
        assert not updates.Row([other], [ones(2, 3)]).serve
    fixed = ones(2, 3)
    fixed.flags.writeable = False
    assert updates.Row([ones(2, 3)], [fixed]).serve  # a gradient is only read
    assert not updates.Row([fixed], [ones(2, 3)]).serve
    for other in (ones(2, 3).view(Named), ones(2, 3).astype(">f4"), [1.0], None, np.float32(1), 7):
        assert not updates.Row([ones(2, 3)], [other]).serve


def test_a_gradient_in_another_memory_order_moves_the_same(rng):
    gradient = rng.normal(size=(5, 7)).astype(np.float32)
    one, two = (Tensor(np.zeros((5, 7), np.float32), requires_grad=True) for _ in range(2))
    one.grad, two.grad = gradient, np.asfortranarray(gradient)
    SGD([one, two], lr=1.0).step()
    np.testing.assert_array_equal(one.data, -gradient)
    np.testing.assert_array_equal(two.data, -gradient)


def test_a_gradient_of_another_shape_is_refused():
    w = Tensor(np.zeros((2, 3)), requires_grad=True)
    w.grad = np.zeros(3)
    with pytest.raises(ValueError, match=r"shape \(2, 3\) has a gradient of shape \(3,\)"):
        SGD([w], lr=0.1).step()
