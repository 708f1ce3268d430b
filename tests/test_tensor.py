"""The laws of the engine: what is recorded, what is kept, where gradients go, what is said when all goes wrong."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import numpy as np
import pytest

import tinyqnn as tq
from tinyqnn.tensor import Function, Observer, Tensor, is_recording, unbroadcast, wants_parts


def watched(array) -> tuple[np.ndarray, weakref.ref]:
    array = np.array(array)
    return array, weakref.ref(array)


def leaf(value=(1.0, 2.0), dtype=np.float64) -> Tensor:
    return Tensor(np.array(value, dtype), requires_grad=True)


class Pair(Function):
    """(2x, 3y): two outputs of two operands."""

    @staticmethod
    def forward(ctx, x, y):
        return 2 * x, 3 * y

    @staticmethod
    def backward(ctx, grad_x, grad_y):
        return 2 * grad_x, 3 * grad_y


class Returns(Function):
    """Passes x on; its derivative is whatever is asked for."""

    @staticmethod
    def forward(ctx, x, *, backward):
        ctx.save(backward)
        return x * 1

    @staticmethod
    def backward(ctx, grad):
        return ctx.saved[0](grad)


class TestMaking:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, bool])
    def test_arrays_keep_their_kind_and_their_memory(self, dtype):
        array = np.ones(3, dtype)
        assert Tensor(array).data is array

    @pytest.mark.parametrize("given", [1.5, [1.5], [[1.5], [2.5]], []])
    def test_python_floats_become_float32(self, given):
        assert Tensor(given).dtype == np.float32

    def test_numpy_numbers_keep_their_kind_and_a_dtype_can_be_asked_for(self):
        assert Tensor(np.float64(1)).dtype == np.float64
        assert Tensor([1, 2], dtype=np.float64).dtype == np.float64
        assert Tensor([1, 2]).dtype.kind == "i"

    def test_a_tensor_of_a_tensor_shares_the_array_and_not_the_history(self):
        x = leaf()
        y = Tensor(x * 2)
        assert not y.requires_grad
        assert Tensor(x).data is x.data

    @pytest.mark.parametrize("bad", [np.ones(2, np.float16), np.ones(2, complex), "text", np.array([None])])
    def test_other_kinds_are_refused(self, bad):
        with pytest.raises(TypeError, match=r"a Tensor holds float32, float64.*got .*convert"):
            Tensor(bad)

    @pytest.mark.parametrize("dtype", [np.int64, bool])
    def test_integers_have_no_gradients(self, dtype):
        with pytest.raises(TypeError, match="only floating-point tensors have gradients"):
            Tensor(np.ones(2, dtype), requires_grad=True)

    def test_what_it_says_of_itself(self):
        x = leaf([[1.0, 2.0, 3.0]])
        assert (x.shape, x.ndim, x.size, len(x), x.dtype) == ((1, 3), 2, 3, 1, np.float64)
        assert repr(x) == "Tensor([[1., 2., 3.]], float64, requires_grad=True)"
        assert repr(Tensor([1, 2], dtype=np.int64)) == "Tensor([1, 2], int64)"
        assert x.numpy() is x.data
        assert x.detach().data is x.data
        assert not x.detach().requires_grad

    def test_one_element_is_a_python_number(self):
        assert type(Tensor([2.0]).item()) is float
        assert type(Tensor([2]).item()) is int
        assert float(Tensor([2.5])) == 2.5
        assert bool(Tensor([0.0])) is False
        with pytest.raises(ValueError, match="can only convert an array of size 1"):
            Tensor([1.0, 2.0]).item()

    def test_a_tensor_is_walked_through_along_its_first_axis(self):
        x = leaf([[1.0, 2.0], [3.0, 4.0]])
        first, second = x
        (first * second).sum().backward()
        assert x.grad.tolist() == [[3.0, 4.0], [1.0, 2.0]]
        with pytest.raises(TypeError, match="no length"):
            len(Tensor(1.0))

    def test_numpy_reads_a_tensor_as_its_array(self):
        x = leaf()
        assert np.asarray(x) is x.data
        assert np.asarray(x, np.float32).dtype == np.float32
        made = np.array(x)
        assert made.dtype == np.float64
        assert not np.shares_memory(made, x.data)

    def test_a_copy_is_independent(self):
        x = leaf()
        y = copy.deepcopy(x)
        y.data[:] = 0
        assert x.data.tolist() == [1, 2]
        assert y.requires_grad


class TestMixing:
    @pytest.mark.parametrize("operator", ["add", "sub", "mul", "truediv", "matmul"])
    def test_an_array_on_the_left_leaves_the_work_to_the_tensor(self, operator):
        method = getattr(np.ndarray, f"__{operator}__")
        array, x = np.array([5.0, 7.0]), leaf()
        assert method(array, x) is NotImplemented
        y = {
            "add": lambda: array + x,
            "sub": lambda: array - x,
            "mul": lambda: array * x,
            "truediv": lambda: array / x,
            "matmul": lambda: array @ x,
        }[operator]()
        assert isinstance(y, Tensor)
        assert y.requires_grad
        np.testing.assert_array_equal(y.data, method(array, x.data))

    def test_a_numpy_number_on_the_left_too(self):
        y = np.float64(3) * leaf()
        assert isinstance(y, Tensor)
        assert y.data.tolist() == [3, 6]

    @pytest.mark.parametrize("number", [2, 2.5, True])
    def test_python_numbers_leave_float32_what_it_is(self, number):
        x = Tensor([1.0, 2.0], requires_grad=True)
        for y in (x + number, number - x, x * number, number / x, x / number, x**number):
            assert y.dtype == np.float32

    def test_kinds_mix_as_numpy_mixes_them_and_each_gradient_is_of_its_operands_kind(self):
        x, y = leaf(dtype=np.float32), leaf(dtype=np.float64)
        z = x * y
        assert z.dtype == np.float64
        z.sum().backward()
        assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float64)
        assert x.grad.tolist() == [1, 2]

    def test_gradients_of_mixed_kinds_on_the_way(self):
        x = leaf(dtype=np.float32)
        ((x * 2) * np.array([3.0, 4.0])).sum().backward()
        assert x.grad.dtype == np.float32
        assert x.grad.tolist() == [6, 8]

    def test_integers_take_part_without_a_gradient(self):
        x, n = leaf(), Tensor([3, 4])
        (n * x).sum().backward()
        assert x.grad.tolist() == [3, 4]
        assert n.grad is None

    def test_the_mean_of_integers_is_no_integer(self):
        assert Tensor([1, 2]).mean().item() == 1.5

    def test_the_smallest_unsigned_number_is_the_smallest(self):
        assert Tensor(np.array([0, 5], np.uint8)).min().item() == 0
        assert Tensor(np.array([True, False])).min().item() is False

    @pytest.mark.parametrize("exponent", [Tensor([2.0]), np.array([1.0, 2.0]), "2"])
    def test_an_exponent_is_a_number(self, exponent):
        with pytest.raises(TypeError, match="the exponent of"):
            leaf() ** exponent


class TestBackward:
    def test_gradients_add_up_until_they_are_forgotten(self):
        x = leaf()
        (x * 3).sum().backward()
        (x * 4).sum().backward()
        assert x.grad.tolist() == [7, 7]
        x.zero_grad()
        assert x.grad is None

    def test_adding_up_leaves_the_array_of_before_alone(self):
        x = leaf()
        (x * 3).sum().backward()
        before = x.grad
        (x * 4).sum().backward()
        assert before.tolist() == [3, 3]

    def test_an_output_that_is_used_twice_passes_the_sum_on_once(self):
        calls = []
        x = leaf()
        y = Returns.apply(x, backward=lambda grad: calls.append(grad.copy()) or grad)
        (y * 2 + y * y).sum().backward()
        assert [grad.tolist() for grad in calls] == [[4, 6]]
        assert x.grad.tolist() == [4, 6]

    def test_a_diamond(self):
        x = leaf()
        a = x * 2
        b, c = a * a, a + 1
        (b * c).sum().backward()  # 4x²(2x + 1): 24x² + 8x
        assert x.grad.tolist() == [32, 112]

    def test_a_derivative_may_add_its_own_gradient_to_what_there_is(self):
        taken = []

        class Twice(Function):
            @staticmethod
            def forward(ctx, x):
                return 2 * x

            @staticmethod
            def backward(ctx, grad):
                before = ctx.take_grad(0)
                taken.append(None if before is None else before.tolist())
                return 2 * grad if before is None else 2 * grad + before

        x = Tensor([1.0], requires_grad=True)
        y = x * 3
        first, second = Twice.apply(y), Twice.apply(y)
        (first + second * 10 + y * 100).backward()
        assert taken == [[100.0], [120.0]]  # the last way is walked back first
        assert x.grad.tolist() == [3 * 122.0]
        taken.clear()
        (Twice.apply(x) + x).backward()
        assert taken == [None]  # a leaf's gradient belongs to its owner
        assert x.grad.tolist() == [3 * 122.0 + 3.0]

    def test_starting_from_a_leaf(self):
        x = leaf([3.0])
        x.backward()
        x.backward(np.array([2.0]))
        assert x.grad.tolist() == [3]

    def test_starting_from_a_given_gradient(self):
        x, seed = leaf(), np.array([10.0, 20.0])
        (x + 0).backward(seed)
        assert x.grad.tolist() == [10, 20]
        x.grad *= 2
        assert seed.tolist() == [10, 20]

    def test_a_gradient_may_be_given_as_a_tensor(self):
        x = leaf()
        (x * 2).backward(Tensor([1.0, 2.0]))
        assert x.grad.tolist() == [2, 4]

    def test_two_leaves_that_are_given_one_gradient_do_not_share_it(self):
        class Both(Function):
            @staticmethod
            def forward(ctx, x, y):
                return x + y

            @staticmethod
            def backward(ctx, grad):
                one = grad * 2
                return one, one

        x, y = leaf(), leaf()
        Both.apply(x, y).sum().backward()
        x.grad *= 0
        assert y.grad.tolist() == [2, 2]

    def test_nor_do_two_that_are_given_one_by_functions_on_different_ways(self):
        class Through(Function):
            @staticmethod
            def forward(ctx, x):
                return x.copy()

            @staticmethod
            def backward(ctx, grad):
                return grad

        a, b = (Tensor(np.ones(3, np.float32), requires_grad=True) for _ in range(2))
        (Through.apply(a) + Through.apply(b)).backward(np.ones(3, np.float32))
        assert not np.may_share_memory(a.grad, b.grad)

    def test_a_gradient_that_is_nobody_elses_is_handed_over_without_a_copy(self):
        made = []
        x = leaf()
        Returns.apply(x, backward=lambda grad: made.append(grad * 2) or made[0]).sum().backward()
        assert x.grad is made[0]

    def test_a_leaf_does_not_share_its_gradient_with_what_a_function_saved(self):
        class Keeps(Function):
            @staticmethod
            def forward(ctx, x, *, kept):
                ctx.save(kept)
                return x * kept

            @staticmethod
            def backward(ctx, grad):
                return ctx.saved[0]

        x, kept = leaf(), np.array([5.0, 6.0])
        Keeps.apply(x, kept=kept).sum().backward()
        x.grad *= 0
        assert kept.tolist() == [5, 6]

    @pytest.mark.parametrize("build", [lambda x: x * x, lambda x: x + x, lambda x: x.exp() + x * x, lambda x: -x])
    def test_the_gradient_of_a_number_is_an_array_too(self, build):
        x = leaf(3.0)
        build(x).backward()
        build(x).backward()
        assert type(x.grad) is np.ndarray
        assert x.grad.shape == ()

    def test_no_elements_no_gradients_no_errors(self):
        x = leaf(np.zeros((0, 3)))
        ((x * 2 + np.ones(3)).exp() @ np.ones((3, 2))).sum().backward()
        assert x.grad.shape == (0, 3)

    def test_several_elements_want_a_gradient_to_start_from(self):
        with pytest.raises(RuntimeError, match=r"starts from one number, got shape \(2,\); take a sum or a mean"):
            (leaf() * 2).backward()

    def test_a_gradient_of_another_shape_is_refused(self):
        x = leaf()
        with pytest.raises(ValueError, match=r"grad has shape \(3,\), the tensor has shape \(2,\)"):
            (x * 2).backward(np.ones(3))
        assert x.grad is None

    def test_nothing_to_differentiate(self):
        with pytest.raises(RuntimeError, match="nothing to differentiate"):
            (Tensor([1.0]) * 2).backward()


class TestFunctions:
    def test_an_output_that_is_not_used_counts_as_zero(self):
        x, y = leaf(), leaf()
        a, _ = Pair.apply(x, y)
        a.sum().backward()
        assert x.grad.tolist() == [2, 2]
        assert y.grad.tolist() == [0, 0]

    def test_each_output_gets_its_own_gradient(self):
        x, y = leaf(), leaf()
        a, b = Pair.apply(x, y)
        (a * 10 + b * 100).sum().backward()
        assert x.grad.tolist() == [20, 20]
        assert y.grad.tolist() == [300, 300]

    def test_an_output_of_integers_requires_no_gradient(self):
        class WithCodes(Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2, np.array([1, 2])

            @staticmethod
            def backward(ctx, grad, of_codes):
                assert of_codes.tolist() == [0, 0]
                return grad * 2

        x = leaf()
        y, codes = WithCodes.apply(x)
        assert not codes.requires_grad
        y.sum().backward()
        assert x.grad.tolist() == [2, 2]

    def test_only_operands_that_want_one_are_asked_for_a_gradient(self):
        asked = []

        class Asks(Function):
            @staticmethod
            def forward(ctx, *args):
                asked.append(ctx.needs_input_grad)
                return args[0] * 1

            @staticmethod
            def backward(ctx, grad):
                return grad, None, None, None

        Asks.apply(leaf(), Tensor([1.0]), np.ones(2), None)
        with tq.no_grad():
            Asks.apply(leaf(), Tensor([1.0]), np.ones(2), None)
        assert asked == [(True, False, False, False), (False, False, False, False)]

    def test_none_means_no_gradient(self):
        x = leaf()
        Returns.apply(x, backward=lambda grad: None).sum().backward()
        assert x.grad is None

    @pytest.mark.parametrize("returned", [lambda grad: (grad, grad), lambda grad: ()])
    def test_a_wrong_number_of_gradients_is_told(self, returned):
        y = Returns.apply(leaf(), backward=returned)
        with pytest.raises(RuntimeError, match=r"Returns.backward returned \d gradients for 1 arguments; return one"):
            y.sum().backward()

    @pytest.mark.parametrize("returned", [lambda grad: grad[:1], lambda grad: grad.sum(), lambda grad: grad[None]])
    def test_a_wrong_shape_is_told(self, returned):
        for x in (leaf(), leaf() * 1):
            y = Returns.apply(x, backward=returned)
            with pytest.raises(RuntimeError, match=r"Returns.backward .*shape .*the argument has shape \(2,\)"):
                y.sum().backward()

    @pytest.mark.parametrize("returned", [lambda grad: 1.0, lambda grad: Tensor(grad), lambda grad: grad.tolist()])
    def test_a_gradient_that_is_no_array_is_told(self, returned):
        y = Returns.apply(leaf(), backward=returned)
        with pytest.raises(TypeError, match=r"Returns\.backward returned a (float|Tensor|list)"):
            y.sum().backward()

    def test_a_function_without_a_derivative_says_so_when_it_is_wanted(self):
        class Forward(Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

        y = Forward.apply(leaf())
        with pytest.raises(NotImplementedError):
            y.sum().backward()


class TestRecording:
    def test_no_grad_as_a_context_nested(self):
        x = leaf()
        with tq.no_grad():
            with tq.no_grad():
                assert not (x * 2).requires_grad
            assert not is_recording()
        assert is_recording()
        assert (x * 2).requires_grad

    def test_no_grad_as_a_decorator_even_of_a_function_that_calls_itself(self):
        @tq.no_grad()
        def count(x: Tensor, n: int) -> Tensor:
            assert not is_recording()
            return x if n == 0 else count(x * 2, n - 1)

        assert not count(leaf(), 3).requires_grad
        assert is_recording()

    def test_one_no_grad_entered_twice(self):
        quiet = tq.no_grad()
        with quiet, quiet:
            assert not is_recording()
        assert is_recording()

    def test_no_grad_ends_when_an_exception_passes(self):
        with pytest.raises(ZeroDivisionError), tq.no_grad():
            raise ZeroDivisionError
        assert is_recording()

    def test_leaves_made_inside_still_want_their_gradients(self):
        with tq.no_grad():
            x = leaf()
        (x * 2).sum().backward()
        assert x.grad.tolist() == [2, 2]


class Watcher(Observer):
    def __init__(self):
        self.forwards, self.backwards = [], []

    def on_forward(self, function, args, options, outputs, seconds):
        self.forwards.append((function.__name__, args, options, outputs, seconds))

    def on_backward(self, function, grads, seconds):
        self.backwards.append((function.__name__, grads, seconds))


class TestObservers:
    def test_what_is_seen_of_an_operation(self):
        x = leaf()
        with Watcher() as seen:
            y = x.sum(axis=0)
            y.backward()
        ((name, args, options, outputs, seconds),) = seen.forwards
        assert (name, options) == ("Sum", {"axis": 0, "keepdims": False})
        assert args[0] is x
        assert outputs[0] is y
        assert seconds >= 0
        ((name, grads, seconds),) = seen.backwards
        assert name == "Sum"
        assert grads[0].tolist() == [1, 1]
        assert seconds >= 0

    def test_several_look_on_until_each_has_left(self):
        outer, inner = Watcher(), Watcher()
        with outer:
            leaf() + 1
            with inner:
                leaf() * 2
            leaf() - 3
        leaf() / 4
        assert [name for name, *_ in outer.forwards] == ["Add", "Mul", "Sub"]
        assert [name for name, *_ in inner.forwards] == ["Mul"]

    def test_they_leave_in_any_order(self):
        first, second = Watcher(), Watcher()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        leaf() + 1
        second.__exit__(None, None, None)
        leaf() + 1
        assert (len(first.forwards), len(second.forwards)) == (0, 1)

    def test_one_that_entered_twice_stays_until_it_left_twice(self):
        seen = Watcher()
        with seen:
            with seen:
                pass
            leaf() + 1
        leaf() + 1
        assert len(seen.forwards) == 1

    def test_an_observer_leaves_when_an_exception_passes(self):
        seen = Watcher()
        with pytest.raises(ZeroDivisionError), seen:
            raise ZeroDivisionError
        leaf() + 1
        assert seen.forwards == []

    def test_an_exception_of_the_operation_itself_is_not_swallowed_and_not_observed(self):
        seen = Watcher()
        with seen, pytest.raises(ValueError, match="matmul"):
            leaf() @ np.ones((3, 3))
        assert seen.forwards == []

    def test_they_see_operations_that_are_not_recorded(self):
        with tq.no_grad(), Watcher() as seen:
            leaf() + 1
        assert len(seen.forwards) == 1

    def test_parts_are_wanted_while_an_observer_looks_on_unless_it_says_otherwise(self):
        whole = Observer()
        whole.parts = False
        assert not wants_parts()
        with whole:
            assert not wants_parts()
            with Watcher():
                assert wants_parts()
            assert not wants_parts()

    def test_the_default_observer_does_nothing(self):
        with Observer():
            (leaf() * 2).sum().backward()


class TestMemory:
    N = 100_000

    def chain(self, n: int) -> tuple[Tensor, Tensor]:
        x = leaf(1.0)
        y = x
        for _ in range(n):
            y = y + 1
        return x, y

    def test_a_hundred_thousand_operations_in_a_row_have_a_derivative(self):
        x, y = self.chain(self.N)
        y.backward()
        assert x.grad == 1

    def test_and_can_be_dropped_without_one(self):
        chains = [self.chain(self.N // 2)]
        thread = threading.Thread(target=chains.clear)  # another thread has a smaller stack
        thread.start()
        thread.join()
        assert chains == []

    def test_thousands_of_operations_on_one_leaf(self):
        x = leaf(1.0)
        total = x * 0
        for _ in range(self.N // 20):
            total = total + x
        total.backward()
        assert x.grad == self.N // 20

    def test_the_record_is_freed_by_backward(self):
        array, alive = watched([1.0, 2.0])
        x = leaf()
        y = (x * Tensor(array)).exp()  # the product saves the array for x's gradient
        z = y.sum()
        del array
        gc.collect()
        assert alive() is not None
        z.backward()
        assert alive() is None  # y and z are still there, what they were made from is not

    def test_the_record_is_freed_with_its_result_without_waiting_for_the_collector(self):
        gc.disable()
        try:
            array, alive = watched([1.0, 2.0])
            y = (leaf() * Tensor(array)).sum()
            del array
            assert alive() is not None
            del y
            assert alive() is None
        finally:
            gc.enable()

    @pytest.mark.parametrize(
        "op",
        [
            lambda x: x + 1,
            lambda x: 1 - x,
            lambda x: x * 2,
            lambda x: np.array([2.0, 3.0]) * x,
            lambda x: x / 2,
            lambda x: -x,
            lambda x: x.exp(),
            lambda x: x.clip(0, 1),
            lambda x: x.sum(),
            lambda x: x.mean(0),
            lambda x: x.reshape(2, 1).exp(),
            lambda x: x[1:] * 2,
            lambda x: tq.functional.relu(x),
            lambda x: tq.functional.sigmoid(x),
            lambda x: tq.functional.tanh(x),
            lambda x: tq.functional.softmax(x),
            lambda x: tq.functional.log_softmax(x),
            lambda x: tq.functional.pad(x, (1, 1)) * 1,
            lambda x: tq.functional.concat([x, x]),
            lambda x: tq.functional.dropout(x, 0.5),
        ],
    )
    def test_an_intermediate_that_no_derivative_asks_for_is_not_kept(self, op):
        array, alive = watched([1.0, 2.0])
        middle = Tensor(array)
        middle.requires_grad = True  # stands for a result that was computed on the way
        y = op(middle)
        del array, middle.data
        gc.collect()
        assert alive() is None
        assert y.requires_grad

    @pytest.mark.parametrize("op", [lambda x: x * x, lambda x: x.log(), lambda x: x.abs(), lambda x: x**2])
    def test_one_that_a_derivative_asks_for_is_kept(self, op):
        array, alive = watched([1.0, 2.0])
        x = Tensor(array, requires_grad=True)
        y = op(x)
        del array
        gc.collect()
        assert alive() is not None
        assert y.requires_grad

    def test_without_a_record_nothing_is_kept(self):
        array, alive = watched([1.0, 2.0])
        x = Tensor(array)
        y = x * x
        del array, x
        assert alive() is None
        assert y.data.tolist() == [1, 4]

    def test_a_second_backward_says_that_the_record_is_gone(self):
        x = leaf()
        y = (x * x).sum()
        y.backward()
        with pytest.raises(RuntimeError, match=r"the record of Sum is gone.*Run the forward again"):
            y.backward()
        assert x.grad.tolist() == [2, 4]

    def test_so_does_one_through_a_part_that_was_shared(self):
        x = leaf()
        shared = x * x
        a, b = shared.sum(), (shared * 3).sum()
        a.backward()
        with pytest.raises(RuntimeError, match="the record of Mul is gone"):
            b.backward()
        assert x.grad.tolist() == [2, 4]

    def test_parts_that_share_only_leaves_are_independent(self):
        x = leaf()
        a, b = (x * x).sum(), (x * 3).sum()
        a.backward()
        b.backward()
        assert x.grad.tolist() == [5, 7]


def test_unbroadcast_sums_over_what_was_repeated():
    grad = np.arange(24.0).reshape(2, 3, 4)
    assert unbroadcast(grad, (2, 3, 4)) is grad
    np.testing.assert_array_equal(unbroadcast(grad, (3, 4)), grad.sum(0))
    np.testing.assert_array_equal(unbroadcast(grad, (2, 1, 4)), grad.sum(1, keepdims=True))
    np.testing.assert_array_equal(unbroadcast(grad, (1, 4)), grad.sum((0, 1))[None])
    np.testing.assert_array_equal(unbroadcast(grad, ()), grad.sum())


class TestCorners:
    def test_elements_that_share_the_maximum_share_its_gradient(self):
        for reduce in (Tensor.max, Tensor.min):
            x = leaf([2.0, 2.0, 2.0, 2.0])
            reduce(x).backward()
            assert x.grad.tolist() == [0.25] * 4
        x = leaf([[1.0, 3.0, 3.0], [5.0, 4.0, 5.0]])
        x.max(axis=1).backward(np.array([1.0, 10.0]))
        assert x.grad.tolist() == [[0, 0.5, 0.5], [5, 0, 5]]

    def test_clip_passes_the_gradient_at_both_ends(self):
        x = leaf([-1.5, -1.0, 0.0, 1.0, 1.5])
        x.clip(-1, 1).sum().backward()
        assert x.grad.tolist() == [0, 1, 1, 1, 0]

    def test_abs_has_gradient_0_at_0(self):
        x = leaf([-2.0, 0.0, 2.0])
        x.abs().sum().backward()
        assert x.grad.tolist() == [-1, 0, 1]

    def test_powers_at_0(self):
        for exponent, expected in ((0, 0), (1, 1), (2, 0), (0.0, 0), (1.0, 1)):
            x = leaf([0.0])
            (x**exponent).backward()
            assert x.grad.tolist() == [expected]

    @pytest.mark.parametrize("dims", [(5, -1), (0, 3), (-4, -1), (2, 1)])
    def test_flatten_over_axes_that_are_not_there(self, dims):
        with pytest.raises(ValueError, match=r"flatten: there are no axes"):
            Tensor(np.zeros((2, 3, 4))).flatten(*dims)

    def test_flatten_of_a_number_is_a_list_of_one(self):
        assert Tensor(3.0).flatten().shape == (1,)
        assert Tensor(np.zeros((0, 3, 2))).flatten(1).shape == (0, 6)

    def test_an_element_taken_twice_gets_both_gradients(self):
        x = leaf([1.0, 2.0, 3.0])
        x[[0, 0, 2]].backward(np.array([1.0, 10.0, 100.0]))
        assert x.grad.tolist() == [11, 0, 100]

    def test_an_index_out_of_range_is_an_error(self):
        with pytest.raises(IndexError, match="out of bounds"):
            leaf()[2]

    def test_shapes_as_numbers_or_as_a_tuple(self):
        x = Tensor(np.zeros((2, 3, 4)))
        assert x.reshape(6, 4).shape == x.reshape((6, 4)).shape == x.reshape([6, 4]).shape == (6, 4)
        assert x.permute(2, 0, 1).shape == x.permute((2, 0, 1)).shape == (4, 2, 3)
        assert x.T.shape == (4, 3, 2)
        assert Tensor(1.0).T.shape == ()
