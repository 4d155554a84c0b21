"""Views of training images: where their pixels come from, and cells that lie on others."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra train is not installed")

from cytoloop.models.training.images import TrainingImage, training_image  # noqa: E402
from cytoloop.models.training.views import Places, Stock, Views, heap  # noqa: E402

CPU = torch.device("cpu")


def image(side: int = 40) -> TrainingImage:
    """Two touching square cells on a ramp."""
    mask = np.zeros((side, side), np.int32)
    mask[10:30, 8:20], mask[10:30, 20:32] = 1, 2
    ramp = np.arange(side * side, dtype=np.float32).reshape(side, side) / side**2
    return training_image("a", "squares", ramp + (mask > 0), mask)


def places(n: int = 1, **given) -> Places:
    usual = {
        "image": np.zeros(n, np.int64),
        "matrix": np.tile(np.eye(2), (n, 1, 1)),
        "centre": np.full((n, 2), 20.0),
        "scale": np.ones(n),
        "bend_px": np.zeros(n),
        "uneven": np.zeros(n),
        "kept": np.ones(n),
    }
    return Places(**{**usual, **given})


def view(where: Places, size: int = 40, images: list[TrainingImage] | None = None, seed: int = 0) -> Views:
    generator = torch.Generator().manual_seed(seed)
    return Stock(images or [image()], CPU).view(where, size, generator)


def test_a_view_of_a_whole_image_is_that_image():
    seen, source = view(places()), image()
    assert np.allclose(seen.plane[0], source.plane, atol=1e-6)
    assert np.array_equal(seen.inside[0], source.mask > 0)
    assert np.allclose(seen.depth[0], source.depth, atol=1e-6)
    assert np.array_equal(seen.deepest[0], source.deepest[source.mask])
    assert (seen.known == 1).all()


def test_beyond_its_edge_an_image_is_mirrored():
    seen = view(places(), 100)
    expected = np.pad(image().plane, 30, mode="symmetric")
    assert np.allclose(seen.plane[0], expected, atol=1e-6)
    far = view(places(centre=np.array([[20.0, 20.0]])), 260)
    assert np.allclose(far.plane[0], np.pad(image().plane, 110, mode="symmetric"), atol=1e-6)


def test_images_of_a_stock_are_kept_apart():
    other = training_image("b", "squares", np.full((17, 90), 7, np.float32), np.zeros((17, 90), np.int32))
    where = places(2, image=np.array([1, 0]))
    seen = view(where, 40, [image(), other])
    assert (seen.plane[0] == 7).all() and (seen.inside[0] == 0).all()
    assert np.allclose(seen.plane[1], image().plane, atol=1e-6)


def test_depths_grow_with_the_scale():
    twice = view(places(matrix=np.eye(2)[None] / 2, scale=np.array([2.0])), 80)
    assert float(twice.deepest.max()) == pytest.approx(2 * image().deepest.max())
    assert float(twice.depth.max()) == pytest.approx(2 * image().depth.max(), rel=0.05)
    assert float(twice.inside.sum()) == pytest.approx(4 * (image().mask > 0).sum(), rel=0.02)


def test_a_quarter_turn_turns_the_image():
    turned = view(places(matrix=np.array([[[0.0, -1.0], [1.0, 0.0]]])))
    assert np.allclose(turned.plane[0], np.rot90(image().plane, -1), atol=1e-5)


def test_a_bent_view_shows_the_same_cells_elsewhere():
    straight, bent = view(places()), view(places(bend_px=np.array([1.5])))
    assert not np.allclose(straight.plane, bent.plane, atol=1e-3)
    assert float(bent.inside.sum()) == pytest.approx(float(straight.inside.sum()), rel=0.3)


def test_uneven_views_dim_cells_and_leave_the_background():
    even, uneven = view(places()), view(places(uneven=np.array([1.0])))
    background = even.inside == 0
    assert torch.allclose(even.plane[background], uneven.plane[background], atol=1e-6)
    assert not torch.allclose(even.plane[~background], uneven.plane[~background], atol=1e-3)


def test_cells_that_are_not_kept_are_background():
    nothing = view(places(kept=np.zeros(1)))
    assert not nothing.inside.any() and not nothing.depth.any() and not nothing.deepest.any()
    assert np.allclose(nothing.plane[0], image().plane, atol=1e-6)
    some = [view(places(kept=np.array([0.5])), seed=seed).inside.sum() for seed in range(12)]
    assert {round(float(total)) for total in some} == {0, 240, 480}  # none, one or both of the two


def test_the_same_state_gives_the_same_views():
    where = places(3, uneven=np.ones(3), kept=np.full(3, 0.5), bend_px=np.ones(3))
    assert torch.equal(view(where, seed=4).plane, view(where, seed=4).plane)
    assert not torch.equal(view(where, seed=4).plane, view(where, seed=5).plane)


def test_cells_laid_on_others_hide_them():
    def square(low: int, high: int, light: float) -> Views:
        inside = torch.zeros(1, 40, 40)
        inside[:, 10:30, low:high] = 1
        far = torch.minimum(torch.arange(40) - low + 1, high - torch.arange(40)).clamp(min=0)
        depth = inside * far
        return Views(light * inside, inside, torch.ones_like(inside), depth, inside * depth.max())

    lower, upper = square(5, 25, 1.0), square(20, 36, 3.0)
    both = heap(lower, upper, 4.0)
    assert torch.equal(both.plane[0, 20], torch.tensor([0.0] * 5 + [1.0] * 15 + [3.0] * 16 + [0.0] * 4))
    assert torch.equal(both.inside, torch.maximum(lower.inside, upper.inside))
    assert torch.equal(both.depth[..., 20:], upper.depth[..., 20:])
    # The lower cell ends where the upper one begins, and was 10 px deep as a whole.
    assert both.depth[0, 20, 15:20].tolist() == [5, 4, 3, 2, 1]
    assert both.depth[0, 20, 5:10].tolist() == [1, 2, 3, 4, 5]
    assert (both.deepest[0, 20, 5:20] == 10).all()
    nothing = square(20, 20, 3.0)
    assert torch.equal(heap(lower, nothing, 4.0).depth, lower.depth)
