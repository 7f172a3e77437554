"""Small networks in plain PyTorch of the kinds that transformers does not have: recommendation, graphs, diffusion.

Each is a module whose forward takes the tensors its builder gives with it and returns one tensor.
"""

import torch
from torch import Tensor, nn


class DLRM(nn.Module):
    """Dense MLP, embedding bags and dot interaction (Naumov et al., 2019)."""

    def __init__(self, dense_count: int, row_counts: tuple[int, ...], width: int):
        super().__init__()
        self.bottom = nn.Sequential(
            nn.Linear(dense_count, 2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU()
        )
        self.tables = nn.ModuleList(nn.EmbeddingBag(rows, width, mode="sum") for rows in row_counts)
        pairs = (len(row_counts) + 1) * len(row_counts) // 2
        self.top = nn.Sequential(nn.Linear(width + pairs, 2 * width), nn.ReLU(), nn.Linear(2 * width, 1))

    def forward(self, dense: Tensor, categories: Tensor, offsets: Tensor) -> Tensor:
        """dense [batch, features], categories [table, indices], offsets [table, batch] -> logits [batch]."""
        vectors = [self.bottom(dense)]
        vectors += [table(row, offset) for table, row, offset in zip(self.tables, categories, offsets, strict=True)]
        features = torch.stack(vectors, dim=1)
        products = torch.bmm(features, features.transpose(1, 2))
        row, column = torch.tril_indices(len(vectors), len(vectors), offset=-1, device=dense.device)
        return self.top(torch.cat([vectors[0], products[:, row, column]], dim=1)).squeeze(1)


class DeepAndCross(nn.Module):
    """DCN-v2 (Wang et al., 2021): crosses of full rank beside a deep network."""

    def __init__(self, row_counts: tuple[int, ...], width: int, layer_count: int = 2):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for rows in row_counts)
        total = len(row_counts) * width
        self.crosses = nn.ModuleList(nn.Linear(total, total) for _ in range(layer_count))
        self.deep = nn.Sequential(nn.Linear(total, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(total + 32, 1)

    def forward(self, categories: Tensor) -> Tensor:
        """categories [batch, table] -> logits [batch]."""
        first = torch.cat([table(categories[:, i]) for i, table in enumerate(self.tables)], dim=1)
        crossed = first
        for cross in self.crosses:
            crossed = first * cross(crossed) + crossed
        return self.head(torch.cat([crossed, self.deep(first)], dim=1)).squeeze(1)


class TwoTower(nn.Module):
    """Retrieval: users and items side by side, each user's item against the others of the batch."""

    def __init__(self, user_count: int, item_count: int, width: int):
        super().__init__()
        self.users = nn.Sequential(nn.Embedding(user_count, width), nn.Linear(width, width), nn.GELU())
        self.items = nn.Sequential(nn.Embedding(item_count, width), nn.Linear(width, width), nn.GELU())

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """users [batch], items [batch] -> softmax loss over the batch's own items, as one number."""
        left = nn.functional.normalize(self.users(users), dim=1)
        right = nn.functional.normalize(self.items(items), dim=1)
        return nn.functional.cross_entropy(left @ right.T / 0.05, torch.arange(len(users), device=users.device))


class SequentialRecommender(nn.Module):
    """SASRec (Kang and McAuley, 2018): causal self-attention over the items a user has seen."""

    def __init__(self, item_count: int, width: int, length: int, head_count: int = 2, layer_count: int = 2):
        super().__init__()
        self.items = nn.Embedding(item_count, width, padding_idx=0)
        self.places = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, head_count, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layer_count, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, seen: Tensor) -> Tensor:
        """seen [batch, length] -> scores of the next item [batch, length, item]."""
        length = seen.shape[1]
        hidden = self.items(seen) + self.places(torch.arange(length, device=seen.device))
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=seen.device)
        return self.norm(self.layers(hidden, mask=mask, is_causal=True)) @ self.items.weight.T


class GatedSequenceLayer(nn.Module):
    """One layer of HSTU (Zhai et al., 2024): pointwise attention without softmax, gated."""

    def __init__(self, width: int):
        super().__init__()
        self.mix = nn.Linear(width, 4 * width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [batch, length, width] -> the same shape."""
        gate, value, query, key = nn.functional.silu(self.mix(hidden)).chunk(4, dim=-1)
        length = hidden.shape[1]
        causal = torch.ones(length, length, device=hidden.device).tril()
        weights = nn.functional.silu(query @ key.transpose(1, 2)) * causal / length
        return hidden + self.out(self.norm(weights @ value) * gate)


class GraphConvolution(nn.Module):
    """Two rounds of mean aggregation over edges by scatter-add (Kipf and Welling, 2017, in spirit)."""

    def __init__(self, feature_count: int, width: int, class_count: int):
        super().__init__()
        self.first = nn.Linear(feature_count, width)
        self.second = nn.Linear(width, class_count)

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        """features [node, feature], edges [2, edge] -> logits [node, class]."""
        source, target = edges

        def gathered(values: Tensor) -> Tensor:
            total = torch.zeros_like(values).index_add(0, target, values[source])
            degree = torch.zeros(len(values), device=values.device).scatter_add(
                0, target, torch.ones_like(target).float()
            )
            return (values + total) / (degree + 1).unsqueeze(1)

        return self.second(gathered(torch.relu(self.first(gathered(features)))))


class UNet(nn.Module):
    """Two scales of convolutions with group norm and a skip connection, conditioned on a time step."""

    def __init__(self, channel_count: int, width: int):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.down = nn.Conv2d(channel_count, width, 3, padding=1)
        self.middle = nn.Sequential(
            nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.SiLU()
        )
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.out = nn.Conv2d(2 * width, channel_count, 3, padding=1)

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        """images [batch, channel, height, width], times [batch] in 0..1 -> predicted noise, like images."""
        skip = self.down(images) + self.time(times[:, None])[:, :, None, None]
        return self.out(torch.cat([skip, self.up(self.middle(skip))], dim=1))


class DiffusionTransformer(nn.Module):
    """DiT (Peebles and Xie, 2023): patches, self-attention, adaptive layer norm from the time step."""

    def __init__(self, channel_count: int, patch: int, width: int, head_count: int):
        super().__init__()
        self.patch = patch
        self.embed = nn.Conv2d(channel_count, width, patch, stride=patch)
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, 6 * width))
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.out = nn.Linear(width, channel_count * patch * patch)
        self.head_count = head_count

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        """images [batch, channel, height, width], times [batch] -> predicted noise, like images."""
        _, channels, height, width = images.shape
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.time(times[:, None])[:, None].chunk(6, dim=-1)
        normed = self.norms[0](tokens) * (1 + scale1) + shift1
        query, key, value = self.qkv(normed).unflatten(-1, (3, self.head_count, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + gate1 * self.project(mixed.transpose(1, 2).flatten(2))
        tokens = tokens + gate2 * self.mlp(self.norms[1](tokens) * (1 + scale2) + shift2)
        patches = self.out(tokens).unflatten(1, (height // self.patch, width // self.patch))
        patches = patches.unflatten(-1, (channels, self.patch, self.patch))
        return patches.permute(0, 3, 1, 4, 2, 5).reshape(images.shape)


class Lstm(nn.Module):
    """A two-layer LSTM language model."""

    def __init__(self, token_count: int, width: int):
        super().__init__()
        self.embed = nn.Embedding(token_count, width)
        self.recurrent = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.head = nn.Linear(width, token_count)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [batch, length] -> logits [batch, length, token]."""
        return self.head(self.recurrent(self.embed(tokens))[0])
