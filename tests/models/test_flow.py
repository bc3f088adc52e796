"""The flow against flows in closed form, and fitted to a conditional Gaussian."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from lcg_lightning.attributes import Attribute, AttributeSchema
from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.data.store import Split, write_store
from lcg_lightning.errors import UserError
from lcg_lightning.models.flow import ConditionalFlow, whitening
from lcg_lightning.models.load import load_flow
from tests.toy_latents import trainer

SCHEMA = AttributeSchema((Attribute("Hat"), Attribute("Size", "continuous", low=0, high=10)))
D = 3


def flow(**options):
    torch.manual_seed(0)
    return ConditionalFlow(D, SCHEMA.to_json(), **{"hidden": 32, "layers": 3, "warmup_steps": 10, **options})


def all_directions(n, rows=1):
    return torch.eye(D // rows)[:, None].expand(-1, n * rows, -1)


def labels_of(n):
    g = torch.Generator().manual_seed(1)
    hat = torch.randint(0, 2, (n,), generator=g).float()
    return torch.stack([hat, 10 * torch.rand(n, generator=g)], 1)


def test_an_affine_flow_has_the_density_of_its_gaussian():
    """dz/dt = A z + b for a fixed condition: z(1) = M z + m with M = exp(A), so z is N(-M^-1 m, (M' M)^-1)."""
    model = flow(steps=40)
    matrix = torch.tensor([[0.3, 0.5, 0.0], [-0.4, -0.2, 0.1], [0.0, 0.3, 0.4]])
    shift = torch.tensor([0.5, -1.0, 0.2])

    class Affine(torch.nn.Module):
        def forward(self, z, t, c, tangent=None):
            moved = z.new_zeros(0, *z.shape) if tangent is None else tangent @ matrix.T
            return z @ matrix.T + shift, moved

    net = model.ema = Affine()
    whole = torch.zeros(4, 4)
    whole[:3, :3], whole[:3, 3] = matrix, shift
    flowed = torch.linalg.matrix_exp(whole)
    m, offset = flowed[:3, :3], flowed[:3, 3]
    exact = MultivariateNormal(-torch.linalg.solve(m, offset), precision_matrix=m.T @ m)
    z, labels = torch.randn(20, D), labels_of(20)
    torch.testing.assert_close(model.log_prob(net, z, labels, all_directions(20)), exact.log_prob(z), rtol=0, atol=1e-4)
    torch.testing.assert_close(model.to_noise(z, labels)[0], z @ m.T + offset, rtol=0, atol=1e-3)


def test_the_divergence_is_that_of_autograd_and_signs_estimate_it():
    model = flow()
    z, t, c = torch.randn(5, D), torch.rand(5), torch.randn(5, 4)
    _, moved = model.net(z, t, c, all_directions(5))
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(
            lambda x, i=i: model.net(x[None], t[i : i + 1], c[i : i + 1])[0][0], z[i]
        )
        torch.testing.assert_close(moved[:, i].T, jacobian, rtol=1e-4, atol=1e-5)
    labels = labels_of(1).expand(4000, -1)
    points = torch.randn(1, D).expand(4000, -1)
    signs = torch.randint(0, 2, (1, 4000, D)).float() * 2 - 1
    with torch.no_grad():
        exact = model.log_prob(model.net, points[:1], labels[:1], all_directions(1))
        guesses = model.log_prob(model.net, points, labels, signs)
    assert abs(guesses.mean() - exact) < 4 * guesses.std() / math.sqrt(4000) + 1e-4


def test_whitening_is_part_of_the_density_and_undone_on_the_way_back():
    """Under a field of 0, latents are Gaussian with the covariance that was whitened, however flat."""
    g = torch.Generator().manual_seed(2)
    mix = torch.linalg.qr(torch.randn(D, D, generator=g))[0] * torch.tensor([2.0, 1.0, 0.01])
    rows = torch.randn(40_000, D, generator=g) @ mix.T
    model = flow()
    for weights in model.ema.parameters():
        weights.zero_()
    model.whitening.copy_(whitening(torch.split(rows, 7_000)))
    torch.testing.assert_close(torch.cov((rows @ model.whitening).T), torch.eye(D), rtol=0, atol=1e-3)
    gaussian = MultivariateNormal(torch.zeros(D).double(), (rows.double().T @ rows.double()) / len(rows))
    found = model.log_prob(model.ema, rows[:20], labels_of(20), all_directions(20))
    torch.testing.assert_close(found, gaussian.log_prob(rows[:20].double()).float(), rtol=0, atol=1e-2)
    noise, _ = model.to_noise(rows, labels_of(len(rows)))
    torch.testing.assert_close(model.to_latents(noise, labels_of(len(rows)))[0], rows, rtol=0, atol=1e-4)
    assert whitening([rows[:2]]).isfinite().all()
    with pytest.raises(UserError, match="the training latents do not vary; it needs 2 or more rows"):
        whitening([rows[:1] - rows[:1].mean(0)])


def test_the_measured_loss_sees_what_training_steps_are_too_coarse_for():
    """dz/dt = 2 z from N(0, I) back: log p(z) = log N(e^2 z; 0, I) + 2 D."""
    model = flow(steps=1)

    class Doubling(torch.nn.Module):
        def forward(self, z, t, c, tangent=None):
            return 2 * z, z.new_zeros(0, *z.shape) if tangent is None else 2 * tangent

    model.ema = Doubling()
    z, labels = 0.3 * torch.randn(50, D), labels_of(50)
    exact = -(2 * D - 0.5 * ((math.e**2 * z).square() + math.log(2 * math.pi)).sum(1)).mean() / D
    coarse = -model.log_prob(model.ema, z, labels, all_directions(50)).mean() / D
    model.validation_step({"latents": z, "labels": labels, "index": torch.arange(50)}, 0)
    assert abs(coarse - exact) > 0.3
    torch.testing.assert_close(model.val_loss.compute(), exact, rtol=0, atol=0.06)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """z ~ N(mean of its labels, diagonal): mean = 2 Hat - 1 along the first axis and Size along the second."""
    g = torch.Generator().manual_seed(0)
    splits = {}
    for name, n in (("train", 3000), ("val", 200)):
        labels = torch.stack([torch.randint(0, 2, (n,), generator=g).float(), 10 * torch.rand(n, generator=g)], 1)
        z = torch.randn(n, D, generator=g) * torch.tensor([0.3, 0.2, 1.0])
        z[:, 0] += 2 * labels[:, 0] - 1
        z[:, 1] += labels[:, 1] / 5 - 1
        splits[name] = Split(z, labels, [f"{name}{i}" for i in range(n)])
    path = write_store(
        tmp_path_factory.mktemp("flow") / "store",
        splits,
        SCHEMA,
        "toy",
        {},
        (torch.zeros(D).double(), torch.ones(D).double()),
    )
    data = LatentDataModule(path, batch_size=100)
    model = flow(lr=5e-3, decay_steps=240, ema_decay=0.95)
    trainer(8, check_val_every_n_epoch=9).fit(model, data)
    return model


def test_a_short_fit_finds_the_conditional_gaussian_and_the_way_back(fitted):
    noise = torch.randn(500, D, generator=torch.Generator().manual_seed(5))
    for hat, size in ((0.0, 2.0), (1.0, 2.0), (1.0, 9.0)):
        labels = torch.tensor([[hat, size]]).expand(500, -1)
        with torch.inference_mode():
            z, used = fitted.to_latents(noise, labels)
            back, _ = fitted.to_noise(z, labels)
        assert (back - noise).abs().max() < 1e-3
        assert (back - noise).abs().mean() < 1e-4
        wanted = torch.tensor([2 * hat - 1, size / 5 - 1, 0.0])
        torch.testing.assert_close(z.mean(0), wanted, rtol=0, atol=0.15)
        torch.testing.assert_close(z.std(0), torch.tensor([0.3, 0.2, 1.0]), rtol=0.3, atol=0)
        assert (used > 10).all()
        part, _ = fitted.to_latents(noise[:7], labels[:7])
        torch.testing.assert_close(part, z[:7], rtol=0, atol=1e-4)


def test_a_fit_whitens_the_training_rows_and_older_checkpoints_do_not(fitted, tmp_path):
    store = fitted.trainer.datamodule.store
    white = store.split("train").latents @ fitted.whitening
    torch.testing.assert_close(white.T @ white / len(white), torch.eye(D), rtol=0, atol=1e-3)
    fitted.trainer.save_checkpoint(tmp_path / "new.ckpt")
    older = torch.load(tmp_path / "new.ckpt", weights_only=True)
    del older["state_dict"]["whitening"]
    torch.save(older, tmp_path / "older.ckpt")
    torch.testing.assert_close(load_flow(tmp_path / "new.ckpt", store).whitening, fitted.whitening)
    torch.testing.assert_close(load_flow(tmp_path / "older.ckpt", store).whitening, torch.eye(D))


def test_rows_of_a_latent_flow_alike():
    whole, single = flow(rows=3), ConditionalFlow(1, SCHEMA.to_json(), hidden=32, layers=3)
    single.load_state_dict(whole.state_dict())
    z, labels = torch.randn(6, D), labels_of(6)
    found, _ = whole.to_noise(z, labels)
    for k in range(3):
        torch.testing.assert_close(found[:, k : k + 1], single.to_noise(z[:, k : k + 1], labels)[0])
    parts = [single.log_prob(single.net, z[:, k : k + 1], labels, torch.ones(1, 6, 1)) for k in range(3)]
    torch.testing.assert_close(whole.log_prob(whole.net, z, labels, torch.ones(1, 18, 1)), torch.stack(parts).sum(0))


def test_impossible_arguments_are_refused():
    for options, message in (({"rows": 2}, "rows is 2"), ({"steps": 0}, "steps is 0"), ({"layers": 1}, "layers is 1")):
        with pytest.raises(UserError, match=message):
            flow(**options)
