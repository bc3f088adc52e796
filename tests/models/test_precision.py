"""What a fit in mixed precision leaves in float32, and that it learns as one in float32 does."""

import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback

from lcg_lightning.data.datamodule import LatentDataModule
from lcg_lightning.models.classifier import LatentClassifier
from lcg_lightning.models.clean import CleanClassifier
from lcg_lightning.models.conditional import ConditionalPrior
from lcg_lightning.models.flow import ConditionalFlow
from lcg_lightning.models.prior import LatentPrior
from tests import toy_latents
from tests.toy_latents import SCHEMA, D, trainer

KINDS = {
    "prior": lambda: LatentPrior(D, hidden=32, layers=3),
    "classifier": lambda: LatentClassifier(D, SCHEMA.to_json(), hidden=32, layers=3),
    "conditional": lambda: ConditionalPrior(D, SCHEMA.to_json(), hidden=32, layers=3),
    "flow": lambda: ConditionalFlow(D, SCHEMA.to_json(), hidden=32, layers=3),
    "clean": lambda: CleanClassifier(D, SCHEMA.to_json(), widths=(32,)),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return LatentDataModule(toy_latents.write(tmp_path_factory.mktemp("precision") / "store", 1000))


def fitted(kind, data, precision):
    """A network after 9 steps, and its losses (9,)."""
    torch.manual_seed(0)
    model, losses = KINDS[kind](), []
    watch = LambdaCallback(on_train_batch_end=lambda trainer, module, out, *_: losses.append(out["loss"].detach()))
    trainer(3, precision=precision, callbacks=[watch]).fit(model, data)
    return model, torch.stack(losses)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_in_bfloat16_learns_as_one_in_float32_and_keeps_what_must_be_exact(kind, data):
    (exact, wanted), (mixed, losses) = (fitted(kind, data, precision) for precision in ("32-true", "bf16-mixed"))
    assert losses.dtype == torch.float32
    assert not torch.equal(losses, wanted)
    torch.testing.assert_close(losses, wanted, rtol=0.02, atol=0.02)
    assert {x.dtype for x in mixed.state_dict().values() if x.is_floating_point()} == {torch.float32}
    if kind in ("prior", "classifier", "conditional"):
        assert torch.equal(mixed.levels, exact.levels)
        assert mixed.levels.dtype == torch.float64
    if kind == "classifier":
        gain, mixed._calibrated = mixed.ema.gain.clone(), False
        mixed._calibrate()  # once more, now that the fit is over
        assert torch.equal(mixed.ema.gain, gain)
    if kind == "flow":
        z = torch.randn(50, D)
        assert torch.equal(mixed.whitening, exact.whitening)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(mixed._whiten(z).double(), z.double() @ exact.whitening.double())
