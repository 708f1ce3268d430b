"""What the table of operations leaves open: ends, ties, huge and missing values, chance, arguments that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from op_table import channels_last, slow_batch_norm, slow_lstm

import tinyqnn as tq
from tinyqnn import functional as F
from tinyqnn.checks import gradcheck
from tinyqnn.tensor import Tensor


def leaf(values, dtype=np.float64) -> Tensor:
    return Tensor(np.array(values, dtype), requires_grad=True)


def image(*rows: list[float]) -> Tensor:
    return leaf([[list(rows)]])


class TestActivations:
    def test_relu_has_gradient_0_at_0(self):
        x = leaf([-1.0, -0.0, 0.0, 1.0])
        F.relu(x).sum().backward()
        assert x.grad.tolist() == [0, 0, 0, 1]

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_nothing_overflows_at_huge_values(self, dtype):
        x = leaf([-1e30, -1000, 0, 1000, 1e30], dtype)
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            assert F.sigmoid(x).data.tolist() == [0, 0, 0.5, 1, 1]
            assert F.tanh(x).data.tolist() == [-1, -1, 0, 1, 1]
            assert F.softmax(x).data.tolist() == [0, 0, 0, 0, 1]
            y = F.log_softmax(leaf([0, 1e4], dtype))
            assert y.data.tolist() == [-1e4, 0]
            y.sum().backward()

    def test_sigmoid_keeps_its_digits_far_from_0(self):
        np.testing.assert_allclose(F.sigmoid(leaf([-40.0, -700.0])).data, np.exp([-40.0, -700.0]), rtol=1e-14)

    def test_softmax_does_not_mind_a_shift_and_sums_to_one(self, rng):
        x = rng.normal(size=(3, 4))
        np.testing.assert_allclose(F.softmax(Tensor(x + 500)).data, F.softmax(Tensor(x)).data, rtol=1e-12)
        np.testing.assert_allclose(F.softmax(Tensor(x), axis=0).data.sum(axis=0), 1, rtol=1e-15)

    def test_a_class_ruled_out_by_minus_infinity(self):
        x = leaf([0.0, -np.inf, 0.0])
        y = F.log_softmax(x)
        assert y.data.tolist() == [-np.log(2), -np.inf, -np.log(2)]
        y[[0, 2]].sum().backward()
        np.testing.assert_allclose(x.grad, [0, 0, 0], atol=1e-15)


class TestGumbelSoftmax:
    LOGITS = np.log([0.5, 0.3, 0.2])

    def test_hot_is_uniform_and_cold_is_one_hot(self, rng):
        hot = F.gumbel_softmax(Tensor(self.LOGITS), tau=1e6, rng=rng).data
        np.testing.assert_allclose(hot, [1 / 3] * 3, rtol=1e-4)
        cold = F.gumbel_softmax(Tensor(self.LOGITS), tau=1e-4, rng=rng).data
        np.testing.assert_allclose(np.sort(cold), [0, 0, 1], atol=1e-12)

    @pytest.mark.parametrize("tau", [0.1, 1.0, 10.0])
    def test_the_largest_is_drawn_as_often_as_softmax_says_at_any_temperature(self, tau, rng):
        logits = Tensor(np.tile(self.LOGITS, (20_000, 1)))
        draws = F.gumbel_softmax(logits, tau, rng=rng).data.argmax(axis=1)
        np.testing.assert_allclose(np.bincount(draws) / 20_000, [0.5, 0.3, 0.2], atol=0.015)  # four standard deviations

    @pytest.mark.parametrize("axis", [0, 1])
    def test_hard_draws_are_exactly_one_hot(self, axis, rng):
        logits = Tensor(rng.normal(size=(200, 200)).astype(np.float32))
        y = F.gumbel_softmax(logits, tau=5.0, hard=True, axis=axis, rng=rng).data
        assert set(np.unique(y).tolist()) == {0.0, 1.0}
        assert (y.sum(axis=axis) == 1).all()
        assert y.dtype == np.float32

    def test_hard_draws_have_the_gradient_of_the_soft_ones(self):
        weights, soft, hard = np.array([1.0, -2.0, 3.0]), leaf(self.LOGITS), leaf(self.LOGITS)
        ys = [F.gumbel_softmax(x, 0.7, h, rng=np.random.default_rng(0)) for x, h in ((soft, False), (hard, True))]
        for y in ys:
            (y * weights).sum().backward()
        assert soft.grad.any()
        np.testing.assert_array_equal(soft.grad, hard.grad)
        assert ys[1].data.argmax() == ys[0].data.argmax()

    def test_without_a_generator_the_seed_decides(self):
        def draw(seed):
            tq.manual_seed(seed)
            return F.gumbel_softmax(Tensor(np.zeros(5))).data.tolist()

        assert draw(1) == draw(1)
        assert draw(1) != draw(2)

    @pytest.mark.parametrize("tau", [0, -1.0, float("nan")])
    def test_a_temperature_is_above_0(self, tau):
        with pytest.raises(ValueError, match="tau must be above 0"):
            F.gumbel_softmax(Tensor([0.0, 0.0]), tau)

    def test_a_temperature_may_be_a_numpy_number(self):
        assert F.gumbel_softmax(Tensor([0.0, 0.0]), np.float64(0.5)).dtype == np.float32


class TestDropout:
    @pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_what_is_dropped_how_often_and_how_the_rest_is_scaled(self, p, dtype, rng):
        n = 40_000
        y = F.dropout(Tensor(np.full(n, 3.0, dtype)), p, rng=rng).data
        assert set(np.unique(y).tolist()) == {0.0, float(dtype(3) * dtype(1 / (1 - p)))}
        assert abs((y == 0).mean() - p) < 4 * np.sqrt(p * (1 - p) / n)
        assert abs(y.mean() - 3) < 4 * 3 * np.sqrt(p / (1 - p) / n)

    def test_the_gradient_takes_the_same_way(self, rng):
        x = leaf(rng.uniform(1, 2, (50, 4)))
        y = F.dropout(x, 0.3, rng=rng)
        y.sum().backward()
        np.testing.assert_allclose(x.grad, y.data / x.data, rtol=1e-15)

    def test_each_call_drops_others_and_the_seed_decides(self):
        x = Tensor(np.ones(100))
        tq.manual_seed(7)
        first, second = F.dropout(x).data, F.dropout(x).data
        tq.manual_seed(7)
        assert (first != second).any()
        np.testing.assert_array_equal(F.dropout(x).data, first)

    def test_evaluation_and_probability_0_change_nothing_and_draw_nothing(self):
        rng = np.random.default_rng(0)
        before = rng.bit_generator.state
        x = Tensor([1.0, 2.0])
        assert F.dropout(x, 0.9, training=False, rng=rng).data.tolist() == [1, 2]
        assert F.dropout(x, 0.0, rng=rng).data.tolist() == [1, 2]
        assert rng.bit_generator.state == before

    def test_probability_1_drops_all(self):
        assert F.dropout(Tensor([1.0, 2.0]), 1.0).data.tolist() == [0, 0]

    @pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
    def test_a_probability_lies_between_0_and_1(self, p):
        with pytest.raises(ValueError, match="p is a probability"):
            F.dropout(Tensor([1.0]), p)

    def test_nothing_to_drop(self):
        assert F.dropout(Tensor(np.zeros((0, 3)))).shape == (0, 3)


class TestLinear:
    def test_no_rows(self):
        x, w, b = leaf(np.zeros((0, 3))), leaf(np.ones((2, 3))), leaf(np.ones(2))
        y = F.linear(x, w, b)
        assert y.shape == (0, 2)
        y.sum().backward()
        assert (x.grad.shape, w.grad.tolist(), b.grad.tolist()) == ((0, 3), [[0, 0, 0], [0, 0, 0]], [0, 0])

    @pytest.mark.parametrize("shapes", [((2, 3), (4, 2), None), ((2, 3), (3,), None), ((), (4, 3), None)])
    def test_shapes_that_do_not_fit(self, shapes):
        x, w, _ = shapes
        with pytest.raises(ValueError, match="linear: the input's last axis must be the weight's second, got"):
            F.linear(Tensor(np.zeros(x)), Tensor(np.zeros(w)))

    def test_a_bias_that_does_not_fit(self):
        with pytest.raises(ValueError, match=r"expected \(4,\), got \(3,\)"):
            F.linear(Tensor(np.zeros((2, 3))), Tensor(np.zeros((4, 3))), Tensor(np.zeros(3)))


class TestConv2d:
    X, W = np.zeros((1, 4, 5, 5)), np.zeros((6, 2, 3, 3))

    def conv(self, x=X, w=W, b=None, groups=2, **options):
        return F.conv2d(Tensor(x), Tensor(w), None if b is None else Tensor(b), groups=groups, **options)

    def test_one_number_means_both_axes_and_numpy_integers_are_numbers(self):
        assert self.conv(stride=np.int64(2), padding=[1, 1]).shape == self.conv(stride=(2, 2), padding=1).shape

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"x": np.zeros((4, 5, 5))}, r"conv2d wants input \(N, C, H, W\)"),
            ({"w": np.zeros((6, 2, 3))}, r"conv2d wants input"),
            ({"groups": 1}, "4 input channels in 1 groups do not fit a weight of shape"),
            ({"groups": 0}, "do not fit"),
            ({"x": np.zeros((1, 8, 5, 5)), "groups": 4}, "groups must divide 6"),
            ({"b": np.zeros(5)}, r"expected \(6,\), got \(5,\)"),
            ({"stride": 0}, "stride and dilation are 1 or more"),
            ({"dilation": (1, 0)}, "stride and dilation are 1 or more"),
            ({"padding": -1}, "padding 0 or more"),
            ({"stride": (1, 2, 3)}, r"stride is a whole number or a pair \(height, width\), got \(1, 2, 3\)"),
            ({"padding": "same"}, "padding is a whole number or a pair"),
            ({"padding": 0.5}, "padding is a whole number or a pair"),
            ({"dilation": None}, "dilation is a whole number or a pair"),
            ({"dilation": 3}, "larger than the padded input"),
            ({"x": np.zeros((1, 4, 5, 2))}, "larger than the padded input"),
        ],
    )
    def test_arguments_that_do_not_fit(self, wrong, message):
        with pytest.raises(ValueError, match=message):
            self.conv(**wrong)

    def test_only_the_weights_want_a_gradient(self, rng):
        x, w = Tensor(rng.normal(size=(1, 2, 3, 3))), leaf(rng.normal(size=(1, 2, 2, 2)))
        assert gradcheck(lambda w: F.conv2d(x, w), [w])


class TestPooling:
    def test_of_equal_values_the_first_in_reading_order_gets_the_gradient(self):
        x = image([7.0, 7.0], [7.0, 7.0])
        F.max_pool2d(x, 2).backward()
        assert x.grad.tolist() == [[[[1, 0], [0, 0]]]]
        x = image([1.0, 7.0], [7.0, 7.0])
        F.max_pool2d(x, 2).backward()
        assert x.grad.tolist() == [[[[0, 1], [0, 0]]]]

    def test_a_pixel_that_wins_in_several_windows_gets_all_their_gradients(self):
        x = image([0.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 0.0])
        F.max_pool2d(x, 2, stride=1).backward(np.array([[[[1.0, 10.0], [100.0, 1000.0]]]]))
        assert x.grad.sum() == x.grad[0, 0, 1, 1] == 1111

    def test_the_border_never_wins_a_maximum(self):
        x = image([-5.0, -6.0], [-7.0, -8.0])
        y = F.max_pool2d(x, 3, stride=2, padding=1)
        assert y.data.tolist() == [[[[-5]]]]
        y.sum().backward()
        assert x.grad.tolist() == [[[[1, 0], [0, 0]]]]

    def test_the_border_counts_as_zeros_in_a_mean(self):
        assert F.avg_pool2d(image([4.0, 4.0], [4.0, 4.0]), 2, stride=2, padding=1).data.tolist() == [[[[1, 1], [1, 1]]]]

    def test_pixels_that_no_window_sees_get_no_gradient(self):
        for pool in (F.max_pool2d, F.avg_pool2d):
            x = leaf(np.arange(25.0).reshape(1, 1, 5, 5))
            pool(x, 2).sum().backward()
            assert not x.grad[0, 0, 4].any()
            assert not x.grad[0, 0, :, 4].any()
            assert x.grad.sum() == 4

    def test_nan_is_not_hidden(self):
        x = image([np.nan, 1.0], [2.0, 3.0])
        assert np.isnan(F.max_pool2d(x, 2).data).all()

    def test_a_window_of_more_than_255_pixels_finds_its_largest(self, rng):
        x = leaf(rng.permutation(2 * 16 * 17).reshape(1, 2, 16, 17))
        F.max_pool2d(x, (16, 17)).backward(np.array([[[[3.0]], [[5.0]]]]))
        expected = np.where(x.data == x.data.max(axis=(2, 3), keepdims=True), [[[[3.0]], [[5.0]]]], 0)
        np.testing.assert_array_equal(x.grad, expected)

    def test_adaptive_to_the_same_size_changes_nothing(self, rng):
        x = rng.normal(size=(2, 3, 3, 5))
        np.testing.assert_allclose(F.adaptive_avg_pool2d(Tensor(x), (3, 5)).data, x, rtol=1e-15)

    def test_adaptive_of_a_single_pixel(self):
        x = image([3.0])
        F.adaptive_avg_pool2d(x, 1).backward(np.array([[[[2.0]]]]))
        assert x.grad.tolist() == [[[[2]]]]

    @pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((0,), "kernel_size and stride are 1 or more"),
            ((2, 0), "kernel_size and stride are 1 or more"),
            ((2, 1, 2), "padding is at most half the kernel"),
            ((2, 1, -1), "padding is at most half the kernel"),
            ((6,), "the window .* is larger than the padded input"),
            (("2",), "kernel_size is a whole number or a pair"),
            (((1, 2, 3),), "kernel_size is a whole number or a pair"),
        ],
    )
    def test_arguments_that_do_not_fit(self, pool, arguments, message):
        with pytest.raises(ValueError, match=message):
            pool(Tensor(np.zeros((1, 1, 5, 5))), *arguments)

    def test_pooling_wants_images(self):
        for pool in (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d):
            with pytest.raises(ValueError, match=r"wants an input \(N, C, H, W\), got \(1, 5, 5\)"):
                pool(Tensor(np.zeros((1, 5, 5))), 2)
        with pytest.raises(ValueError, match="output_size is 1 or more"):
            F.adaptive_avg_pool2d(Tensor(np.zeros((1, 1, 5, 5))), 0)


class TestBatchNorm:
    def test_running_statistics_move_by_momentum_with_the_unbiased_variance(self, rng):
        x = rng.normal(size=(3, 2, 2, 2))
        mean, var = np.array([1.0, 2.0]), np.array([3.0, 4.0])
        of_batch, unbiased = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3), ddof=1)
        kept_mean, kept_var = mean.copy(), var.copy()
        F.batch_norm(Tensor(x), kept_mean, kept_var, training=True, momentum=0.3)
        np.testing.assert_allclose(kept_mean, 0.7 * mean + 0.3 * of_batch, rtol=1e-14)
        np.testing.assert_allclose(kept_var, 0.7 * var + 0.3 * unbiased, rtol=1e-14)

    def test_evaluation_leaves_them_alone(self, rng):
        mean, var = np.array([1.0, 2.0]), np.array([3.0, 4.0])
        F.batch_norm(Tensor(rng.normal(size=(3, 2))), mean, var)
        assert (mean.tolist(), var.tolist()) == ([1, 2], [3, 4])

    def test_in_training_the_running_statistics_do_not_touch_the_result(self, rng):
        x = rng.normal(size=(4, 2))
        y = F.batch_norm(Tensor(x), np.array([9.0, 9.0]), np.array([7.0, 7.0]), training=True)
        np.testing.assert_allclose(y.data, slow_batch_norm(x), rtol=1e-12)

    @pytest.mark.parametrize("shape", [(64, 3, 5, 5), (40, 3, 20, 20)])  # by NumPy and by compiled loops
    @pytest.mark.parametrize("memory", [np.ascontiguousarray, channels_last])
    @pytest.mark.parametrize("mean", [0, 1e3, -1e4])
    def test_a_large_mean_does_not_cost_the_digits_of_a_small_variance(self, shape, memory, mean, rng):
        x = memory((mean + rng.normal(size=shape)).astype(np.float32))
        exact = x.astype(np.float64)
        m, v = exact.mean(axis=(0, 2, 3)), exact.var(axis=(0, 2, 3))
        kept_mean, kept_var = np.zeros(3, np.float32), np.zeros(3, np.float32)
        y = F.batch_norm(Tensor(x), kept_mean, kept_var, training=True, momentum=1.0).data
        assert y.dtype == np.float32
        n = x.size // 3
        np.testing.assert_allclose(kept_mean, m, rtol=2e-7, atol=1e-6)
        np.testing.assert_allclose(kept_var, v * n / (n - 1), rtol=1e-5)
        expected = (exact - m[:, None, None]) / np.sqrt(v[:, None, None] + 1e-5)
        # The mean itself is only known to half a unit in the last place of float32.
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=abs(mean) * 2.0**-23 + 1e-5)

    @pytest.mark.parametrize("memory", [np.ascontiguousarray, channels_last])
    def test_gradients_of_large_float32_batches_are_those_of_float64(self, memory, rng):
        arrays = [memory(rng.normal(5, 1, (40, 3, 10, 10))), rng.normal(size=3), rng.normal(size=3)]
        g, grads = memory(rng.normal(size=(40, 3, 10, 10))), []
        for dtype in (np.float32, np.float64):
            xs = [Tensor(a.astype(dtype), requires_grad=True) for a in arrays]
            F.batch_norm(xs[0], None, None, *xs[1:], training=True).backward(g)
            grads.append([x.grad for x in xs])
        for single, double in zip(*grads, strict=True):
            assert single.dtype == np.float32
            np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("shape", [(64, 16, 9, 9), (700, 5), (3, 300, 7, 5), (5000, 1)])
    @pytest.mark.parametrize("shortcut", [False, True])
    def test_compiled_loops_against_the_float64_twin(self, shape, shortcut, rng):
        """Each sum within 1e-5 of the sum of absolute products, each number within 1e-5 of what it is made of."""
        arrays = [channels_last(rng.normal(2, 1, shape)) if len(shape) == 4 else rng.normal(2, 1, shape)]
        arrays += [rng.normal(size=shape[1]), rng.normal(size=shape[1]), rng.normal(size=shape)]
        g, results = rng.normal(size=shape), []
        for dtype in (np.float32, np.float64):
            xs = [Tensor(a.astype(np.float32).astype(dtype), requires_grad=True) for a in arrays]
            y = F.batch_norm_relu(xs[0], None, None, *xs[1:3], training=True, plus=xs[3] if shortcut else None)
            y.backward(g)
            results.append((y.data, *(x.grad for x in xs[: 4 if shortcut else 3])))
        (y, grad_x, grad_w, grad_b, *grad_p), (y64, grad_x64, grad_w64, grad_b64, *grad_p64) = results
        np.testing.assert_allclose(y, y64, atol=1e-5 * 10)
        np.testing.assert_array_equal(y > 0, y64 > 0)  # no kink was crossed by rounding
        axes, total = tuple({*range(len(shape))} - {1}), abs(g)
        x_hat = abs(arrays[0] - arrays[0].mean(axes, keepdims=True)) / arrays[0].std(axes, keepdims=True)
        assert (abs(grad_w - grad_w64) <= 1e-5 * (total * x_hat).sum(axes)).all()
        assert (abs(grad_b - grad_b64) <= 1e-5 * total.sum(axes)).all()
        np.testing.assert_allclose(grad_x, grad_x64, atol=1e-5 * abs(grad_x64).max())
        for single, double in zip(grad_p, grad_p64, strict=True):
            np.testing.assert_allclose(single, double, rtol=1e-6)

    def test_constant_channels_are_brought_to_the_shift(self):
        y = F.batch_norm(Tensor(np.full((4, 1), 3.0)), None, None, None, Tensor(np.array([0.5])), training=True)
        assert y.data.tolist() == [[0.5]] * 4

    def test_one_value_a_channel_has_no_variance(self):
        for shape in ((1, 3), (1, 3, 1, 1)):
            with pytest.raises(ValueError, match="more than one value a channel"):
                F.batch_norm(Tensor(np.zeros(shape)), training=True)

    @pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
    def test_what_does_not_fit_is_named(self, name):
        wrong = np.zeros(2) if name.startswith("running") else Tensor(np.zeros(2))
        with pytest.raises(ValueError, match=rf"batch_norm: {name} .*expected \(3,\), got \(2,\)"):
            F.batch_norm(Tensor(np.zeros((4, 3))), **{name: wrong})
        with pytest.raises(ValueError, match=r"batch_norm wants an input \(N, C, …\)"):
            F.batch_norm(Tensor(np.zeros(3)))


class TestLSTM:
    def weights(self, rng, features=2, hidden=3, bias=(True, True)):
        shapes = [(4 * hidden, features), (4 * hidden, hidden), (4 * hidden,), (4 * hidden,)]
        drawn = [rng.normal(size=shape) for shape in shapes]
        return [leaf(w) if i < 2 or bias[i - 2] else None for i, w in enumerate(drawn)]

    @pytest.mark.parametrize("bias", [(True, False), (False, True)])
    def test_a_bias_of_one_kind_counts(self, bias, rng):
        x, weights = rng.normal(size=(3, 2, 2)), self.weights(rng, bias=bias)
        y, _ = F.lstm(Tensor(x), [tuple(weights)])
        arrays = [np.zeros(12) if w is None else w.data for w in weights]
        np.testing.assert_allclose(y.data, slow_lstm(x, [arrays])[0], rtol=1e-12)
        given = [w for w in weights if w is not None]
        slots = [i for i, w in enumerate(weights) if w is not None]

        def f(*ws):
            layer = [None] * 4
            for slot, w in zip(slots, ws):
                layer[slot] = w
            return F.lstm(Tensor(x), [tuple(layer)])[0]

        assert gradcheck(f, given)

    def test_each_gate_by_itself(self, rng):
        """Rows i, f, g, o of the matrices, one gate moved at a time."""
        x, weights = rng.normal(size=(2, 1, 2)), self.weights(rng)
        for gate in range(4):
            rows = slice(3 * gate, 3 * gate + 3)

            def f(part, gate=gate, rows=rows):
                whole = [F.concat([w[: rows.start].detach(), part, w[rows.stop :].detach()]) for w in weights[2:3]]
                return F.lstm(Tensor(x), [(weights[0].detach(), weights[1].detach(), *whole, None)])[0]

            assert gradcheck(f, leaf(weights[2].data[rows]))

    def test_the_last_output_is_the_final_state(self, rng):
        y, (h, c) = F.lstm(Tensor(rng.normal(size=(4, 2, 2))), [tuple(self.weights(rng))])
        np.testing.assert_array_equal(y.data[-1], h.data[0])
        assert c.shape == h.shape == (1, 2, 3)

    def test_a_sequence_in_two_halves_with_the_state_carried_over(self, rng):
        x, layers = rng.normal(size=(6, 2, 2)), [tuple(self.weights(rng)), tuple(self.weights(rng, features=3))]
        whole, (h, c) = F.lstm(Tensor(x), layers)
        first, state = F.lstm(Tensor(x[:3]), layers)
        second, (h2, c2) = F.lstm(Tensor(x[3:]), layers, state)
        np.testing.assert_allclose(np.concatenate([first.data, second.data]), whole.data, rtol=1e-13)
        np.testing.assert_allclose([h2.data, c2.data], [h.data, c.data], rtol=1e-13)

    def test_gradients_flow_through_a_state_that_is_carried_over(self, rng):
        layers = [tuple(self.weights(rng))]

        def f(x):
            _, state = F.lstm(x[:2], layers)
            return F.lstm(x[2:], layers, state)[0]

        assert gradcheck(f, leaf(rng.normal(size=(4, 1, 2))))

    def test_dropout_falls_between_the_layers_only_and_in_training_only(self, rng):
        x, layers = Tensor(rng.normal(size=(3, 2, 2))), [tuple(self.weights(rng)), tuple(self.weights(rng, features=3))]
        plain = F.lstm(x, layers)[0].data
        np.testing.assert_array_equal(F.lstm(x, layers, dropout=0.9, training=False)[0].data, plain)
        np.testing.assert_array_equal(
            F.lstm(x, layers[:1], dropout=0.9, training=True)[0].data, F.lstm(x, layers[:1])[0].data
        )
        first = F.lstm(x, layers[:1])[0]
        dropped = F.dropout(first, 0.5, rng=np.random.default_rng(1))
        np.testing.assert_array_equal(
            F.lstm(x, layers, dropout=0.5, training=True, rng=np.random.default_rng(1))[0].data,
            F.lstm(dropped, layers[1:])[0].data,
        )

    def test_huge_inputs_saturate_without_overflow(self, rng):
        weights = [Tensor(w.data * 1e4) for w in self.weights(rng)]
        y, (_, c) = F.lstm(Tensor(rng.normal(size=(3, 2, 2))), [tuple(weights)])
        assert np.isfinite(y.data).all()
        assert np.isfinite(c.data).all()

    @pytest.mark.parametrize("shape", [(0, 2, 2), (3, 0, 2)])
    def test_no_words_or_no_sentences(self, shape, rng):
        weights = self.weights(rng)
        y, (h, _) = F.lstm(Tensor(np.zeros(shape)), [tuple(weights)])
        assert y.shape == (*shape[:2], 3)
        assert h.shape == (1, shape[1], 3)
        (y.sum() + h.sum()).backward()
        assert not any(w.grad.any() for w in weights)

    def test_shapes_that_do_not_fit_are_named(self, rng):
        w_ih, w_hh, b_ih, b_hh = self.weights(rng)
        x = Tensor(np.zeros((3, 2, 2)))
        with pytest.raises(ValueError, match=r"lstm wants an input \(T, N, features\), got \(3, 2\)"):
            F.lstm(Tensor(np.zeros((3, 2))), [(w_ih, w_hh, b_ih, b_hh)])
        with pytest.raises(ValueError, match=r"layer 0: expected weight_ih of shape \(12, 5\)"):
            F.lstm(Tensor(np.zeros((3, 2, 5))), [(w_ih, w_hh, b_ih, b_hh)])
        with pytest.raises(ValueError, match=r"layer 0: expected weight_hh of shape \(12, 3\)"):
            F.lstm(x, [(w_ih, w_hh[:11], b_ih, b_hh)])
        with pytest.raises(ValueError, match=r"biases of shape \(12,\)"):
            F.lstm(x, [(w_ih, w_hh, b_ih[:1], b_hh)])
        with pytest.raises(ValueError, match=r"the initial state is \(layers, N, hidden\) = \(1, 2, 3\)"):
            F.lstm(x, [(w_ih, w_hh, b_ih, b_hh)], (Tensor(np.zeros((2, 3))), Tensor(np.zeros((2, 3)))))


class TestEmbedding:
    def test_a_word_that_occurs_often_gets_all_its_gradients(self):
        w = leaf(np.zeros((4, 2)))
        F.embedding(np.array([[1, 3], [1, 1]]), w).backward(np.array([[[1, 2], [10, 20]], [[100, 200], [1000, 2000]]]))
        assert w.grad.tolist() == [[0, 0], [1101, 2202], [0, 0], [10, 20]]

    @pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
    def test_any_integers_in_any_shape(self, dtype):
        w = leaf(np.arange(6.0).reshape(3, 2))
        assert F.embedding(np.array(2, dtype), w).data.tolist() == [4, 5]
        y = F.embedding(np.zeros((2, 0, 3), dtype), w)
        assert y.shape == (2, 0, 3, 2)
        y.sum().backward()
        assert not w.grad.any()

    @pytest.mark.parametrize("ids", [[3], [-1]])
    def test_words_that_are_not_in_the_table(self, ids):
        with pytest.raises(ValueError, match=r"the table has rows 0 … 2, input has"):
            F.embedding(np.array(ids), leaf(np.zeros((3, 2))))

    @pytest.mark.parametrize("ids", [np.array([1.0]), Tensor([1.0]), np.array([True])])
    def test_words_are_integers(self, ids):
        with pytest.raises(TypeError, match="embedding looks rows up by integers"):
            F.embedding(ids, leaf(np.zeros((3, 2))))


class TestLosses:
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_huge_logits(self, dtype):
        x = leaf([[1e4, 0.0], [-1e4, 0.0]], dtype)
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            loss = F.cross_entropy(x, np.array([1, 1]))
            loss.backward()
        assert loss.item() == 5e3
        assert x.grad.tolist() == [[0.5, -0.5], [0, 0]]

    def test_it_is_the_mean_of_minus_log_softmax(self, rng):
        x, targets = rng.normal(size=(5, 4)), np.array([3, 0, 1, 1, 2])
        expected = -F.log_softmax(Tensor(x)).data[np.arange(5), targets].mean()
        assert F.cross_entropy(Tensor(x), targets).item() == pytest.approx(expected, rel=1e-14)

    def test_ignored_targets_count_neither_above_nor_below(self, rng):
        x, targets = leaf(rng.normal(size=(4, 3))), np.array([0, -100, 2, -100])
        loss = F.cross_entropy(x, targets)
        loss.backward()
        assert loss.item() == pytest.approx(F.cross_entropy(x.detach()[[0, 2]], np.array([0, 2])).item(), rel=1e-14)
        assert not x.grad[[1, 3]].any()

    def test_an_ignored_target_cannot_spoil_the_loss(self):
        x = leaf([[-np.inf, 0.0, 0.0], [0.0, 0.0, 0.0]])
        loss = F.cross_entropy(x, np.array([-100, 1]))
        loss.backward()
        assert loss.item() == pytest.approx(np.log(3))
        assert np.isfinite(x.grad).all()

    def test_all_targets_ignored(self):
        x = leaf([[1.0, 2.0]])
        loss = F.cross_entropy(x, np.array([-100]))
        loss.backward()
        assert loss.item() == 0
        assert x.grad.tolist() == [[0, 0]]

    @pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
    def test_targets_of_any_integer_kind(self, dtype):
        assert F.cross_entropy(Tensor([[0.0, 0.0]]), np.array([1], dtype)).item() == pytest.approx(np.log(2), rel=1e-6)

    @pytest.mark.parametrize(
        ("shape", "target", "error", "message"),
        [
            ((2, 3), [0.0, 1.0], TypeError, "wants class numbers"),
            ((2, 3), [0, 1, 2], ValueError, r"wants a target of shape \(2,\), got \(3,\)"),
            ((2, 3, 4), [0, 1], ValueError, r"wants a target of shape \(2, 4\)"),
            ((), [0], ValueError, r"wants logits with an axis of classes"),
            ((2, 0), [-100, -100], ValueError, r"logits of one class or more, got shape \(2, 0\)"),
            ((0,), -100, ValueError, r"logits of one class or more, got shape \(0,\)"),
            ((2, 3), [0, 3], ValueError, "target 3 is no class: the input has classes 0 … 2"),
            ((2, 3), [0, -1], ValueError, "target -1 is no class"),
            ((3, 3), [0, 5, 4], ValueError, "target 5 is no class"),
        ],
    )
    def test_targets_that_do_not_fit(self, shape, target, error, message):
        with pytest.raises(error, match=message):
            F.cross_entropy(Tensor(np.zeros(shape)), np.array(target))

    def test_mean_squared_error_wants_one_shape(self):
        with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(3,\)"):
            F.mse_loss(Tensor(np.zeros((2, 3))), np.zeros(3))

    def test_mean_squared_error_takes_an_array_as_target(self):
        x = leaf([1.0, 2.0])
        F.mse_loss(x, np.array([0.0, 4.0])).backward()
        assert x.grad.tolist() == [1, -2]


class TestShapes:
    @pytest.mark.parametrize("widths", [(1,), (1, 1, 1, 1, 1, 1), (-1, 0)])
    def test_a_border_that_does_not_fit(self, widths):
        with pytest.raises(ValueError, match=r"pad is \(before, after\) for each axis from the last"):
            F.pad(Tensor(np.zeros((2, 2))), widths)

    def test_nothing_to_join(self):
        for join in (F.concat, F.stack):
            with pytest.raises(ValueError, match="at least one"):
                join([])

    def test_joining_only_what_fits(self):
        with pytest.raises(ValueError, match="dimensions"):
            F.concat([Tensor(np.zeros((2, 3))), Tensor(np.zeros((2, 2)))])
        with pytest.raises(ValueError, match="same shape"):
            F.stack([Tensor(np.zeros((2, 3))), Tensor(np.zeros((2, 2)))])

    def test_a_leaf_that_is_joined_to_itself(self):
        x = leaf([1.0, 2.0])
        (F.concat([x, x, x * 2]) * np.array([1.0, 10, 100, 1000, 1e4, 1e5])).sum().backward()
        assert x.grad.tolist() == [20101.0, 201010.0]


LARGE = {
    "relu": (lambda x: F.relu(x), [(8, 16, 8, 9)]),
    "softmax": (lambda x: F.softmax(x), [(70, 90)]),
    "softmax of columns": (lambda x: F.softmax(x, axis=0), [(70, 90)]),
    "log_softmax": (lambda x: F.log_softmax(x), [(70, 90)]),
    "cross_entropy": (lambda x: F.cross_entropy(x, np.where(np.arange(70) % 3, np.arange(70), -100)), [(70, 90)]),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), [(8, 16, 9, 8)]),
    "max_pool2d overlapping": (lambda x: F.max_pool2d(x, 3, 2, 1), [(8, 16, 9, 8)]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), [(8, 16, 9, 8)]),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [(8, 16, 9, 8), (16,), (16,)]),
    "batch_norm rows": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [(90, 70), (70,), (70,)]),
    "batch_norm eval": (
        lambda x, w, b: F.batch_norm(x, np.full(16, 0.5), np.full(16, 2.0), w, b),
        [(8, 16, 9, 8), (16,), (16,)],
    ),
    "linear": (F.linear, [(70, 90), (80, 90), (80,)]),
    "conv2d": (lambda *xs: F.conv2d(*xs, 2, 1), [(8, 16, 9, 8), (20, 16, 3, 3), (20,)]),
    "conv2d depthwise": (lambda *xs: F.conv2d(*xs, 1, 1, 1, 16), [(8, 16, 9, 8), (16, 1, 3, 3), (16,)]),
    "lstm": (
        lambda x, h, c, *ws: F.lstm(x, [ws], (h, c))[0],
        [(9, 20, 30), (1, 20, 40), (1, 20, 40), (160, 30), (160, 40), (160,), (160,)],
    ),
}


@pytest.mark.parametrize("memory", ["as given", "channels last", "with gaps"])
@pytest.mark.parametrize("name", LARGE)
def test_large_float32_arrays_agree_with_float64(name, memory, rng):
    """Large arrays of float32 take compiled loops, float64 the plain ones: values and every gradient are the same."""
    f, shapes = LARGE[name]
    if memory == "channels last" and len(shapes[0]) != 4:
        pytest.skip("no image")
    lay = {"channels last": channels_last, "with gaps": lambda x: np.repeat(x, 2, axis=0)[::2]}.get(memory, np.array)
    arrays = [(rng.normal(size=shape) / (1 if len(shape) != 2 else 4)).astype(np.float32) for shape in shapes]
    arrays[0] = lay(arrays[0])
    results, g = [], None
    for dtype in (np.float64, np.float32):
        xs = [Tensor(a.astype(dtype, copy=False), requires_grad=True) for a in arrays]
        y = f(*xs)
        g = rng.normal(size=y.shape).astype(np.float32) if g is None else g
        y.backward(lay(g) if g.ndim else g)
        results.append([y.data, *(x.grad for x in xs)])
    for double, single in zip(*results, strict=True):
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, double, rtol=1e-4, atol=3e-5 * max(1, np.abs(double).max()))
