"""PyTorch Geometric: a graph convolution and a graph attention network, trained on a small graph."""

import sys

import torch
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv

device = sys.argv[1]
torch.manual_seed(1)
edges = torch.randint(0, 12, (2, 40))
graph = Data(x=torch.randn(12, 8), edge_index=edges, y=torch.randint(0, 3, (12,))).to(device)
first, second = GCNConv(8, 16).to(device), GATConv(16, 3, heads=2, concat=False).to(device)
optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=0.01)
for _ in range(3):
    out = second(first(graph.x, graph.edge_index).relu(), graph.edge_index)
    loss = torch.nn.functional.cross_entropy(out, graph.y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item())
print("device", out.device.type)
