import torch

from lcg_lightning.commands.products import faster_products


def test_products_keep_the_precision_of_float32():
    before = torch.get_float32_matmul_precision()
    try:
        faster_products()
        for rows in (1, 16, 256):
            a, b = torch.randn(rows, 512), torch.randn(512, 384)
            exact = a.double() @ b.double()
            assert (a @ b - exact).norm() < 2e-6 * exact.norm()  # bfloat16: 3e-3
    finally:
        torch.set_float32_matmul_precision(before)
