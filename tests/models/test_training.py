"""What a net learns from, and the loop that it learns in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

torch = pytest.importorskip("torch", reason="the extra train is not installed")

from cytoloop.acquire.errors import ModelError  # noqa: E402
from cytoloop.models.training import memory  # noqa: E402
from cytoloop.models.training.between import between  # noqa: E402
from cytoloop.models.training.crops import Batch, Crops  # noqa: E402
from cytoloop.models.training.images import FINE, near_cells, training_image  # noqa: E402
from cytoloop.models.training.loop import Schedule, fit, losses  # noqa: E402
from cytoloop.models.training.net import ARCHITECTURES, Architecture, CellNet, parameters  # noqa: E402
from cytoloop.models.training.partial import mostly_in  # noqa: E402
from cytoloop.models.training.targets import depths  # noqa: E402
from cytoloop.models.training.teacher import Taught  # noqa: E402

SMALL = Architecture(2, (6, 8), 2, 16.0, (10.0, 24.0))


def disc(shape=(96, 96), centre=(48, 48), radius=12.0) -> np.ndarray:
    y, x = np.indices(shape)
    return (np.hypot(y - centre[0], x - centre[1]) <= radius).astype(np.int32)


def discs_image(name: str = "discs", scale: float = 1.0, known: np.ndarray | None = None):
    shape = tuple(round(96 * scale) for _ in range(2))
    mask = np.zeros(shape, np.int32)
    for number, centre in enumerate(((24, 24), (24, 70), (70, 48)), start=1):
        mask[disc(shape, tuple(scale * c for c in centre), 9 * scale) > 0] = number
    light = ndimage.gaussian_filter((mask > 0).astype(np.float32), 1)
    return training_image(name, "discs", light, mask, known)


def crops(seed: int = 0, **given) -> Crops:
    return Crops([discs_image()], {"discs": 1.0}, SMALL, **{"size_px": 32, "count": 4, "seed": seed, **given})


# --- targets ------------------------------------------------------------------------------------------------


def test_a_cell_is_as_broad_as_it_is_and_deepest_in_its_middle():
    found = depths(disc(radius=12.0))
    assert found.breadth_px == pytest.approx(2 * 12.5, abs=1.0)
    assert np.unravel_index(found.depth.argmax(), found.depth.shape) == (48, 48)
    assert (found.depth[disc(radius=12.0) == 0] == 0).all()


def test_a_rod_is_as_broad_as_its_short_side():
    mask = np.zeros((60, 120), np.int32)
    mask[25:35, 10:110] = 4
    assert depths(mask).breadth_px == pytest.approx(10, abs=1)


def test_touching_cells_have_no_depth_between_them():
    mask = np.zeros((40, 60), np.int32)
    mask[10:30, 10:30], mask[10:30, 30:50] = 1, 2
    found = depths(mask)
    along = found.depth[20, 10:50]
    assert along[19] <= 1 and along[20] <= 1 and along[10] > 8 and along[30] > 8
    assert found.breadth_px == pytest.approx(20, abs=2)


def test_cells_that_the_edge_cuts_go_on_behind_it():
    whole = depths(disc(centre=(48, 48), radius=14.0)).depth
    cut = depths(disc(centre=(48, 48), radius=14.0)[48:]).depth
    assert cut[0, 48] >= whole[48, 48] - 1


def test_no_cells_have_no_breadth():
    assert depths(np.zeros((30, 30), np.int32)).breadth_px == 0


# --- images -------------------------------------------------------------------------------------------------


def test_large_cells_are_shown_at_less_resolution_and_measured_there():
    image = discs_image(scale=8.0)
    assert image.plane.shape == image.mask.shape == image.known.shape == image.depth.shape
    assert image.plane.shape[0] < 8 * 96 and image.breadth_px < 2 * FINE
    assert len(image.middles) == 3 and image.deepest.shape == (4,)
    assert [image.mask[int(y), int(x)] for y, x in image.middles] == [1, 2, 3]


def test_numbers_of_cells_may_have_gaps():
    mask = discs_image().mask.astype(np.int32)
    image = training_image("a", "discs", discs_image().plane, np.where(mask > 0, mask * 70_000, 0))
    assert np.array_equal(image.mask, mask)


def test_what_is_near_a_cell_is_known():
    mask = disc(radius=10)
    near = near_cells(mask, 5.0)
    assert near[mask > 0].all() and near[48, 48 + 15] and not near[48, 48 + 16]
    assert not near_cells(0 * mask, 5.0).any()


def test_cells_outside_of_a_region_are_left_out_and_the_others_numbered_anew():
    found = np.zeros((20, 40), np.int32)
    found[5:15, 2:10], found[5:15, 12:22], found[5:15, 30:38] = 1, 2, 3
    region = np.zeros((20, 40), np.bool_)
    region[:, 16:] = True
    kept = mostly_in(region, found)
    assert np.array_equal(kept > 0, (found == 2) | (found == 3)) and kept.max() == 2


# --- crops --------------------------------------------------------------------------------------------------


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in Batch.__slots__)


def test_the_same_seed_draws_the_same_crops_and_a_state_is_gone_on_from():
    one, other, third = crops(3), crops(3), crops(4)
    first = one.batch()
    assert same(first, other.batch()) and not same(first, third.batch())
    state = one.state()
    after = one.batch()
    third.restore(state)
    assert same(after, third.batch()) and not same(after, first)


def test_a_crop_and_its_targets_fit_each_other():
    batch = crops(count=64, size_px=48).batch()
    assert batch.planes.shape == (64, 1, 48, 48)
    assert batch.inside.shape == batch.core.shape == batch.breadth.shape == batch.known.shape == (64, 24, 24)
    for target in (batch.inside, batch.core):
        assert float(target.min()) >= 0 and float(target.max()) <= 1 + 1e-6
    assert float((batch.core - batch.inside).max()) <= 1e-6  # the core lies within the cells
    assert float(batch.known.min()) == 1
    bright = torch.nn.functional.avg_pool2d(batch.planes, 2)[:, 0]
    inside, outside = bright[batch.inside > 0.9].mean(), bright[batch.inside < 0.01].mean()
    assert float(inside) > float(outside) + 0.3


def test_breadths_lie_in_the_range_of_the_net_and_now_and_then_beyond_it():
    drawn = crops(count=128, size_px=32).batch()
    octaves = np.array(
        [
            float(b[i > 0.99].median())
            for b, i in zip(drawn.breadth, drawn.inside, strict=True)
            if (i > 0.99).any()
        ]
    )
    breadths = SMALL.diameter_px * 2**octaves
    usual = (breadths > 8) & (breadths < 26)
    assert 0.6 < usual.mean() < 1
    assert breadths.min() > 4 and breadths.max() < 56


def test_kinds_are_drawn_in_their_shares():
    dark = replace(discs_image(), kind="dark", plane=np.full((96, 96), -5, np.float32))
    drawn = Crops(
        [discs_image(), dark], {"discs": 1.0, "dark": 3.0, "none": 9.0}, SMALL, size_px=16, count=200
    )
    share = float((drawn.batch().planes.mean((1, 2, 3)) < -0.5).float().mean())
    assert 0.6 < share < 0.9


def test_crowded_images_are_drawn_more_often():
    crowd = discs_image()  # three cells against one: the root of 3 as often
    alone = training_image("one", "discs", np.full((96, 96), -5, np.float32), disc())
    drawn = Crops([crowd, alone], {"discs": 1.0}, SMALL, size_px=16, count=400)
    share = float((drawn.batch().planes.mean((1, 2, 3)) > -0.5).float().mean())
    assert 0.55 < share < 0.72


def test_what_is_not_known_stays_unknown_in_every_crop():
    known = np.zeros((96, 96), np.bool_)
    known[:, :48] = True
    image = discs_image(known=known)
    batch = Crops([image], {"discs": 1.0}, SMALL, size_px=32, count=32).batch()
    assert 0.2 < float(batch.known.mean()) < 0.8


def test_cells_of_a_heaped_kind_lie_on_each_other():
    usual, heaped = crops(count=64, size_px=48), crops(count=64, size_px=48, heaped=("discs",))
    inside = [float(source.batch().inside.mean()) for source in (usual, heaped)]
    assert inside[1] > 1.02 * inside[0]


def test_a_teacher_is_heard_as_much_as_it_is_asked():
    teacher = CellNet(SMALL)
    with torch.no_grad():
        teacher.head.weight.zero_()
        teacher.head.bias.view(3, -1)[:] = torch.tensor([[3.0], [-1.0], [0.5]])
    drawn, taught = crops(2).batch(), Taught(crops(2), teacher, 0.25)
    mixed = taught.batch()
    assert torch.equal(mixed.planes, drawn.planes) and torch.equal(mixed.known, drawn.known)
    assert torch.allclose(mixed.inside, 0.75 * drawn.inside + 0.25 * 0.9526, atol=2e-3)
    assert torch.allclose(mixed.core, 0.75 * drawn.core + 0.25 * 0.2689, atol=2e-3)
    assert torch.allclose(mixed.breadth[drawn.inside == 0], torch.tensor(0.5), atol=2e-3)
    assert torch.equal(mixed.breadth[drawn.inside > 0], drawn.breadth[drawn.inside > 0])
    state = taught.state()
    after = taught.batch()
    taught.restore(state)
    assert same(after, taught.batch())


# --- learning -----------------------------------------------------------------------------------------------


def test_what_is_not_known_counts_in_no_loss():
    batch = crops().batch()
    answer = torch.randn(4, 3, 16, 16)
    known = torch.ones(4, 16, 16)
    known[:, :, 8:] = 0
    part = replace(batch, known=known, inside=batch.inside * known)
    other = answer.clone()
    other[:, :2, :, 8:] += 5
    assert torch.equal(losses(answer, part), losses(other, part))
    assert not torch.equal(losses(answer, batch), losses(other, batch))
    half = Batch(*(getattr(part, name)[..., :8] for name in Batch.__slots__))
    assert float(losses(answer[..., :8], half)) == pytest.approx(float(losses(answer, part)), rel=1e-5)


def test_a_net_learns(tmp_path: Path):
    torch.manual_seed(0)
    net = CellNet(SMALL)
    told: list[tuple[int, float | None]] = []
    schedule = Schedule(steps=30, rate=1e-2, warm=3, check_every=10, threads=1)
    history = fit(
        net,
        crops(size_px=48, count=6),
        schedule,
        tmp_path,
        score=lambda averaged: -float(averaged.head.bias.detach().abs().sum()),
        report=lambda step, loss, score: told.append((step, score)),
    )
    assert [step for step, _ in told] == list(range(1, 31))
    assert (
        [step for step, score in told if score is not None] == [10, 20, 30] == [s for s, _ in history.score]
    )
    assert history.loss[-1][1] < 0.8 * history.loss[0][1]
    assert history.best == max(history.score, key=lambda pair: pair[1])
    assert not net.training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA card")
def test_a_net_learns_on_a_card_and_goes_on_from_there(tmp_path: Path):
    torch.manual_seed(0)
    net, scored = CellNet(SMALL), []
    schedule = Schedule(steps=30, rate=1e-2, warm=3, check_every=10, threads=1, device="cuda")

    def score(averaged: CellNet) -> float:
        scored.append(next(averaged.parameters()).device.type)
        return float(len(scored))

    on_card = {"size_px": 48, "count": 6, "device": "cuda"}
    history = fit(net, crops(**on_card), schedule, tmp_path, score=score)
    assert history.loss[-1][1] < 0.8 * history.loss[0][1]
    assert scored == ["cpu"] * 3 and next(net.parameters()).device.type == "cpu"
    more = replace(schedule, steps=40)
    history = fit(CellNet(SMALL), crops(**on_card), more, tmp_path, score=score, resume=True)
    assert [step for step, _ in history.loss] == [10, 20, 30, 40]


def test_the_best_weights_are_kept_and_patience_ends_the_training(tmp_path: Path):
    net = CellNet(SMALL)
    seen: list[dict[str, torch.Tensor]] = []

    def score(averaged: CellNet) -> float:
        seen.append({name: value.clone() for name, value in averaged.state_dict().items()})
        return {2: 5.0}.get(len(seen), 1.0)

    schedule = Schedule(steps=100, rate=1e-2, warm=1, check_every=1, patience=3, threads=1)
    history = fit(net, crops(), schedule, tmp_path, score=score)
    assert history.best == (2, 5.0) and len(history.score) == 2 + 3 + 1
    assert all(torch.equal(value, seen[1][name]) for name, value in net.state_dict().items())

    calls = len(seen)
    again = CellNet(SMALL)
    resumed = fit(again, crops(), schedule, tmp_path, score=score, resume=True)
    assert resumed.best == history.best and len(seen) == calls  # it had ended, and is not taken up again
    assert all(torch.equal(value, seen[1][name]) for name, value in again.state_dict().items())


def test_a_training_that_stopped_half_way_goes_on_to_the_very_same_net(tmp_path: Path):
    def trained(folder: str, seed: int, stop: int | None = None, resume: bool = False) -> CellNet:
        def score(averaged: CellNet) -> float:
            nonlocal checks
            checks += 1
            if checks == stop:
                raise KeyboardInterrupt
            return float(checks)

        checks = 0
        torch.manual_seed(seed)
        net = CellNet(SMALL)
        schedule = Schedule(steps=6, rate=1e-2, warm=1, check_every=2, threads=1)
        fit(net, crops(seed), schedule, tmp_path / folder, score=score, resume=resume)
        return net

    whole = trained("whole", 0)
    with pytest.raises(KeyboardInterrupt):
        trained("parts", 0, stop=2)
    again = trained("parts", 5, resume=True)  # neither the seed of its weights nor that of its crops matters
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_net_half_way_between_two_has_the_mean_of_their_weights():
    first, then = CellNet(SMALL), CellNet(SMALL)
    half = between(first, then, 0.5)
    for mixed, a, b in zip(half.parameters(), first.parameters(), then.parameters(), strict=True):
        assert torch.allclose(mixed, (a + b) / 2, atol=1e-6)
    for kept, same_as in ((0.0, then), (1.0, first)):
        mixed = between(first, then, kept)
        assert all(torch.equal(a, b) for a, b in zip(mixed.parameters(), same_as.parameters(), strict=True))


def test_a_loss_that_is_no_number_ends_the_training_with_a_reason(tmp_path: Path):
    net = CellNet(SMALL)
    with torch.no_grad():
        net.head.bias.fill_(float("nan"))
    with pytest.raises(ModelError, match="the loss is nan at step 1; a lower rate"):
        fit(net, crops(), Schedule(steps=2, threads=1), tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no checkpoint"])
def test_a_checkpoint_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ModelError, match=r"checkpoint\.pt: no"):
        fit(CellNet(SMALL), crops(), Schedule(steps=2, threads=1), tmp_path, resume=True)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_net_answers_on_its_grid_and_is_small(name: str):
    architecture = ARCHITECTURES[name]
    net = CellNet(architecture).eval()
    side = 2 * architecture.step
    with torch.no_grad():
        answer = net(torch.zeros(1, 1, side, side + architecture.step))
    assert answer.shape == (1, 3, side // architecture.grid, (side + architecture.step) // architecture.grid)
    assert parameters(net) < 1_500_000


def test_memory_is_kept_where_that_helps_and_nowhere_else(monkeypatch: pytest.MonkeyPatch):
    memory.keep_memory()
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("there is no glibc"))
    memory.keep_memory()
