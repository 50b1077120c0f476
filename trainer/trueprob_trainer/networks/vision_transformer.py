"""Vision transformer (Dosovitskiy et al.: arXiv:2010.11929), size S of DeiT (arXiv:2012.12877).

Patches have 4x4 pixels, so a 32x32 image becomes 64 tokens and a class token. Normalisation comes
before attention and before the MLP. The classifier reads the class token. Train it with AdamW.
"""

import torch
from torch import Tensor, nn


class EncoderBlock(nn.Module):
    """Self-attention and an MLP (hidden width: four times), each with a shortcut."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.before_attention = nn.LayerNorm(width, eps=1e-6)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens of shape (n, t, width) to the same shape."""
        width = tokens.shape[2]
        heads = self.queries_keys_values(self.before_attention(tokens))
        # (n, t, 3·width) → 3 of (n, heads, t, width/heads)
        heads = heads.unflatten(2, (3, self.n_heads, width // self.n_heads)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        tokens = tokens + self.projection(attended.transpose(1, 2).flatten(2))
        after: Tensor = tokens + self.mlp(tokens)
        return after


class VisionTransformer(nn.Module):
    """Patches with positions, encoder blocks, and a linear classifier of the class token."""

    def __init__(
        self,
        *,
        channels: int,
        n_classes: int,
        image_size: tuple[int, int],
        patch: int,
        width: int,
        depth: int,
        n_heads: int,
    ) -> None:
        super().__init__()
        if image_size[0] % patch or image_size[1] % patch:
            raise ValueError(f"image_size must be multiples of {patch}, got {image_size}")
        n_patches = (image_size[0] // patch) * (image_size[1] // patch)
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.empty(1, 1 + n_patches, width))
        self.blocks = nn.Sequential(*(EncoderBlock(width, n_heads) for _ in range(depth)))
        self.after = nn.LayerNorm(width, eps=1e-6)
        self.classifier = nn.Linear(width, n_classes)
        nn.init.trunc_normal_(self.position, std=0.02)  # the published scale, here and below
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, channels, height, width) to logits."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        first = self.class_token.expand(tokens.shape[0], -1, -1)
        tokens = self.blocks(torch.cat((first, tokens), dim=1) + self.position)
        logits: Tensor = self.classifier(self.after(tokens[:, 0]))
        return logits


def vit_small_4(
    *, channels: int, n_classes: int, image_size: tuple[int, int] = (32, 32)
) -> nn.Module:
    """ViT-S/4: 12 blocks of width 384 with 6 heads, 21.3 million weights."""
    return VisionTransformer(
        channels=channels,
        n_classes=n_classes,
        image_size=image_size,
        patch=4,
        width=384,
        depth=12,
        n_heads=6,
    )
