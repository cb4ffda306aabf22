"""What the benchmark of the image step times is one and the same step in several ways."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from benchmarks.image_step import Variant, bound_through_all_blocks, bound_through_the_largest, variants

from implicit_l2o.applications.images import ImageClassifier, Proven, ShallowNet
from implicit_l2o.networks import conv2d_norm_bound


def test_all_ways_to_a_step_give_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # what it compiles, not the compiler
    net = ImageClassifier(ShallowNet(width=4), contraction=Proven(0.5), seed=0).train()
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
    start = net.start(images)
    gradients = {}
    for group in variants(net, start, start).values():
        for title, variant in group.items():
            variant.step(images, labels)
            gradients[title] = torch.cat([p.grad.flatten() for p in variant.net.parameters() if p.grad is not None])
    reference = gradients.pop("the formula as it is written")
    for title, gradient in gradients.items():
        cosine = float(F.cosine_similarity(gradient, reference, dim=0))
        assert cosine > (0.99 if "0.1" in title else 0.9999), title  # each stops at its own residual


@pytest.mark.parametrize("former", [bound_through_all_blocks, bound_through_the_largest])
def test_the_old_bound_is_the_bound(former: Callable[..., torch.Tensor]) -> None:
    kernel = torch.randn(4, 3, 3, 3, requires_grad=True)
    (old,) = torch.autograd.grad(former(kernel, (5, 5)), kernel)
    (new,) = torch.autograd.grad(conv2d_norm_bound(kernel, (5, 5)), kernel)
    torch.testing.assert_close(old, new)


def test_results_are_medians_of_what_was_measured() -> None:
    variant = Variant(ImageClassifier(ShallowNet(width=4), contraction=Proven(0.5), seed=0).train())
    for _ in range(3):
        variant.measure(torch.rand(4, 1, 8, 8), torch.arange(4))
    found = variant.result()
    assert found["milliseconds"] == pytest.approx(1e3 * sorted(variant.times)[1])
    assert found["residual"] <= 1e-2
