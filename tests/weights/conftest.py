"""timm's network as it is published, with the exact GELU, for tests of files from elsewhere."""

import pytest
import torch

from vitexp import torch_ops  # noqa: F401  (before timm)

from timm.models.vision_transformer import VisionTransformer  # isort: skip

from vitexp.nn.vit import ViT, ViTConfig
from vitexp.weights.load import load_weights


class Wild:
    """A small network of ours, the same of timm's, and the comparison of the two."""

    config = ViTConfig(arch="w16d2m32h2/4", image_size=8, classes=3, gelu="exact")
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1

    @staticmethod
    def oracle(seed=0, **options):
        """timm's, with every parameter far from its initial value."""
        torch.manual_seed(seed)
        sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0}
        model = VisionTransformer(**sizes | {"num_classes": 3} | options)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    def filled(self, name, **options):
        """Ours from a file."""
        model = ViT(self.config).eval()
        load_weights(model, name, **options)
        return model

    @torch.no_grad()
    def assert_same_logits(self, name, theirs):
        """What the file makes of ours computes what theirs does."""
        torch.testing.assert_close(self.filled(name)(self.images), theirs(self.images), rtol=0, atol=1e-5)


@pytest.fixture(scope="session")
def wild():
    return Wild()
